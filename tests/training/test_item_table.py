"""The item table: a phase begins equal to the encoder, and the encoder follows at its end."""

import itertools
import json
import os
import signal

import lightning.pytorch as lp
import polars as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from recsys.assembly import build, checks
from recsys.config.compose import compose
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.recommender.trainable import TrainableRecommender
from recsys.training import item_table
from recsys.training.item_table import ItemTableDistillation, encode_all_items
from recsys.training.phases import count_phase_steps
from recsys.training.seeding import BatchSeeder


@pytest.fixture
def words(shop_words, tmp_path, monkeypatch):
    """40 users make 7 batches of 6 an epoch."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    return [*shop_words, "tracking.wandb=off", "trainer.batch_size=6", "tuning=full"]


class Spy(Callback):
    """What is so after each batch, in front of or behind `ItemTableDistillation`."""

    def __init__(self, distill):
        self.distill, self.moved, self.gaps, self.weights = distill, [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        table = self.distill.table
        rows = torch.arange(len(table.base))
        gap = (table(rows).detach() - encode_all_items(pl_module)).abs().max()
        self.gaps.append(gap.item())
        self.moved.append(len(table.find_moved()))
        named = pl_module.get_distilled_roles().values()
        self.weights.append(
            torch.cat([p.detach().flatten().clone() for part in named for _, p in part])
        )


def trained(words, updates, **options):
    """What held before and after each phase's end."""
    distill = ItemTableDistillation(updates, 6, 1.0, seed=0)
    before, after = Spy(distill), Spy(distill)
    fitted(words, updates, [before, distill, after], **options)
    return before, after


def fitted(words, updates, callbacks, epochs=2, accumulate=1, max_steps=-1):
    """Trains a model with a table."""
    made = build.assemble(compose([*words, f"trainer.encoder_updates={updates}"]))
    trainer = lp.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        max_steps=max_steps,
        accumulate_grad_batches=accumulate,
        callbacks=[BatchSeeder(0), *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(made.recommender, made.datamodule)


def test_a_phase_is_read_from_its_option():
    assert [
        count_phase_steps("every_step", 7),
        count_phase_steps("half_epoch", 7),
        count_phase_steps("half_epoch", 1),
    ] == [0, 4, 1]
    assert count_phase_steps("30", 7) == 30
    for wrong in ("", "0", "-3", "1.5", "epoch", "٣", "²"):
        with pytest.raises(ConfigError, match="encoder_updates"):
            count_phase_steps(wrong, 7)


REFUSED = [
    (["trainer.encoder_updates=often"], "every_step, half_epoch or a number"),
    (["trainer.encoder_updates=0"], "every_step, half_epoch or a number"),
    (["trainer.encoder_updates=3", "trainer.devices=2"], "one device"),
    (["trainer.encoder_updates=3", "trainer.precision=fp16-mixed"], "bf16-mixed or fp32"),
    (["trainer.encoder_updates=3", "tuning=frozen"], "tuning=frozen trains none"),
    (["trainer.encoder_updates=3", "architecture.towers=separate"], "towers=shared"),
    (["trainer.encoder_updates=3", "architecture.user=text"], "towers=separate"),
    (
        [
            "trainer.encoder_updates=3",
            "architecture=cross_encoder",
            "objective=sampled_softmax",
            "evaluation.protocol=candidates",
        ],
        "item vectors",
    ),
]


@pytest.mark.parametrize(("more", "sentence"), REFUSED)
def test_what_a_table_cannot_do_is_refused_in_a_sentence(words, capsys, more, sentence):
    with pytest.raises(ConfigError, match=sentence) as found:
        checks.check_pairs(compose([*words, *more]))
    assert "\n" not in str(found.value)
    with pytest.raises(ConfigError):
        build.assemble(compose([*words, *more]))


def test_every_step_has_no_table(words):
    made = build.assemble(compose([*words, "trainer.encoder_updates=every_step"]))
    model = made.recommender
    assert model.table is None
    assert not model.get_distilled_roles()
    assert model.get_stepped_roles() == model.group_by_role()
    assert model.get_saved_parameters().keys() == model.get_trained_parameters().keys()


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_before_the_first_step_the_table_is_the_encoder(words, tuning):
    """At dropout 0: the same loss and the same gradients of the heads, as no vector has moved."""
    more = [f"tuning={tuning}", "regularization.dropout=0"]
    model = build.assemble(compose([*words, *more])).recommender
    batch = next(iter(build.assemble(compose([*words, *more])).datamodule.train_dataloader()))

    def step():
        model.zero_grad()
        around = model.parts.around(model.score)
        loss = model.parts.objective(model(batch), batch, around)
        loss.total.backward()
        grads = [p.grad.clone() for _, p in model.group_by_role()["head"]]
        return loss.total.detach(), grads

    model.train()
    loss, grads = step()
    table = item_table.ItemTable(len(model.parts.texts), model.encoder.width)
    table.refresh(encode_all_items(model))
    model.table = table
    assert model.training
    held, own = step()
    torch.testing.assert_close(held, loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(own, grads, rtol=1e-4, atol=1e-5)
    # The step reached the rows that it read, and no others; the encoder got nothing.
    rows = table.moved.grad.any(1).nonzero()[:, 0]
    assert set(rows.tolist()) <= set(batch.plan.items.tolist())
    assert len(rows)
    assert all(p.grad is None for part in model.get_distilled_roles().values() for _, p in part)
    # Outside of training it is the encoder that answers.
    with torch.no_grad():
        table.moved.fill_(1.0)
    everything = encode_all_items(model)
    torch.testing.assert_close(everything, table.base, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("updates", "ends"), [("half_epoch", [3, 6, 10, 13]), ("3", [2, 5, 6, 9, 12, 13])]
)
def test_phases_end_where_they_should_and_with_each_epoch(words, updates, ends):
    before, after = trained(words, updates)
    steps = range(14)
    # What a step ends on is the encoder's own vector where a phase ended, and only there.
    assert [i for i in steps if after.gaps[i] == 0] == ends
    assert all(gap > 0 for gap in before.gaps)
    assert [i for i in steps if not after.moved[i]] == ends
    # The encoder moves at the ends alone.
    changed = [i for i in steps if not torch.equal(before.weights[i], after.weights[i])]
    assert changed == ends
    between = [i for i in steps[1:] if not torch.equal(after.weights[i - 1], before.weights[i])]
    assert not between


def test_a_phase_counts_optimiser_steps_and_ends_with_max_steps(words):
    # 7 batches, 2 a step: 4 steps an epoch, the last of one batch.
    _, after = trained(words, "3", accumulate=2)
    # Equal as well after the first half of a step, where nothing has moved yet.
    assert [i for i, gap in enumerate(after.gaps) if gap == 0] == [0, 5, 6, 7, 12, 13]
    _, after = trained(words, "100", max_steps=3)
    assert len(after.gaps) == 3
    assert after.gaps[-1] == 0


class Teacher(Callback):
    """Moves the table to the vectors of a disturbed encoder, which the trained one can reach."""

    def __init__(self, distill):
        self.distill, self.vectors, self.gaps = distill, None, []

    def on_train_start(self, trainer, pl_module):
        table, generator = self.distill.table, torch.Generator().manual_seed(0)
        held = [
            (p, p.detach().clone()) for v in pl_module.get_distilled_roles().values() for _, p in v
        ]
        with torch.no_grad():
            for p, _ in held:
                p.add_(0.03 * torch.randn(p.shape, generator=generator))
            self.vectors = encode_all_items(pl_module)
            for p, old in held:
                p.copy_(old)
        assert torch.equal(encode_all_items(pl_module), table.base)
        self.gaps.append(float((table.base - self.vectors).square().mean()))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        table = self.distill.table
        with torch.no_grad():
            table.moved.copy_((self.vectors - table.base) / table.scale)
        self.gaps.append(float((table.base - self.vectors).square().mean()))


@pytest.mark.parametrize(
    ("tuning", "cache", "rate"),
    [("full", "true", 0.01), ("lora", "true", 0.01), ("lora", "false", 0.01), ("lora", "true", 0)],
)
def test_distillation_brings_the_encoder_to_the_table(words, tuning, cache, rate):
    more = [
        f"tuning={tuning}",
        "tuning.layers=1",
        f"encoder.cache={cache}",
        "encoder.chunk_tokens=24",
        f"optimizer.lr={rate}",
        "optimizer.schedule=constant",
        "optimizer.warmup=0",
    ]
    distill = ItemTableDistillation("2", 6, 1.0, seed=0)
    teacher = Teacher(distill)
    fitted([*words, *more], "2", [teacher, distill])
    if rate:
        assert teacher.gaps[-1] < 0.5 * teacher.gaps[0]
    else:
        assert teacher.gaps[-1] == teacher.gaps[0] > 0


def test_the_log_and_what_is_kept(words, tmp_path):
    more = ["tuning=lora", "tuning.layers=1", "trainer.epochs=3", "trainer.log_every=1"]
    assert main([*words, *more, "trainer.encoder_updates=half_epoch"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    log = pl.read_csv(folder / "log" / "metrics.csv")
    ends = log.filter(pl.col("table/items").is_not_null())
    assert ends["step"].to_list() == [4, 7, 11, 14, 18, 21]
    assert (ends["table/items"] > 10).all()
    assert {"lr/table", "lr/head", "grad_norm/table", "distance/table"} <= set(log.columns)
    assert "grad_norm/tuned" not in log.columns
    # What is kept is the encoder and the heads; the table has gone into them.
    best = load_file(folder / "checkpoints" / "best.safetensors")
    assert not any(name.startswith("table") for name in best)
    plain = build.assemble(compose([*words, *more])).recommender
    assert best.keys() == plain.get_trained_parameters().keys()
    cost = json.loads((folder / "result.json").read_text())["cost"]
    assert cost["trained_parameters"] == sum(
        p.numel() for p in plain.get_trained_parameters().values()
    )
    assert cost["parameters"] == sum(p.numel() for p in plain.parameters())


def test_a_run_with_a_table_learns_what_one_without_learns(words, tmp_path):
    """The made-up shop is learned nearly as well; far better than before the first step."""
    found = {}
    for updates in ("every_step", "half_epoch"):
        output = tmp_path / updates
        more = [f"trainer.encoder_updates={updates}", f"output={output}", "trainer.epochs=8"]
        assert main([*words, *more, "optimizer.lr=0.003"]) == 0
        (folder,) = output.iterdir()
        values = pl.read_csv(folder / "log" / "metrics.csv")["val/ndcg@10"].drop_nulls()
        found[updates] = (values[0], values.max())
    start, best = found["half_epoch"]
    assert start == found["every_step"][0]
    assert best - start > 0.5 * (found["every_step"][1] - start) > 0


@pytest.mark.slow
@pytest.mark.parametrize("call", [2, 6, 7, 10])
@pytest.mark.parametrize(
    "more",
    [
        ["tuning=full", "regularization.l2_sp=0.1"],
        ["tuning=lora", "tuning.dropout=0.3", "trainer.accumulate=2"],
    ],
    ids=["full", "lora_accumulated"],
)
def test_a_stop_within_a_phase_changes_nothing(words, tmp_path, monkeypatch, call, more):
    words = [w for w in words if not w.startswith(("tuning", "output"))]
    words = [*words, *more, "trainer.encoder_updates=3", "trainer.log_every=1"]

    def outcome(output):
        (folder,) = output.iterdir()
        state = load_file(folder / "checkpoints" / "best.safetensors")
        log = pl.read_csv(folder / "log" / "metrics.csv").drop("seconds")
        return log.to_dicts(), {k: v.tolist() for k, v in state.items()}

    assert main([*words, f"output={tmp_path / 'straight'}"]) == 0
    original, calls = TrainableRecommender.training_step, []

    def step(self, batch, batch_idx):
        calls.append(batch_idx)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(TrainableRecommender, "training_step", step)
        assert main([*words, f"output={tmp_path / 'stopped'}"]) == 143
    (folder,) = (tmp_path / "stopped").iterdir()
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert "table.moved" in kept["state_dict"]
    assert main([f"resume={folder}"]) == 0
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "straight")


def test_an_encoder_of_its_own_for_users_trains_in_every_step(words):
    more = ["architecture.user=text", "architecture.towers=separate"]
    weights = []

    class Users(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            stepped = [x for named in pl_module.get_stepped_roles().values() for x in named]
            assert not any(name.startswith("_encoder.") for name, _ in stepped)
            users = [p for name, p in stepped if name.startswith("_user_encoder.")]
            weights.append(torch.cat([p.detach().flatten().clone() for p in users]))

    distill = ItemTableDistillation("half_epoch", 6, 1.0, seed=0)
    spy = Spy(distill)
    fitted([*words, *more], "half_epoch", [Users(), distill, spy], epochs=1)
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(weights))
    assert [i for i, gap in enumerate(spy.gaps) if gap == 0] == [3, 6]


def test_l2_sp_reaches_each_parameter_once(words):
    """The heads feel it in every step and the encoder in the distillation; the table never."""
    made = build.assemble(compose([*words, "regularization.l2_sp=1.0"]))
    model = made.recommender
    model.setup("fit")
    whole = model.compute_l2_sp(model.get_trained_parameters())
    model.table = item_table.ItemTable(len(model.parts.texts), model.encoder.width)
    with torch.no_grad():
        for p in model.get_trained_parameters().values():
            p.add_(0.5)
    parts = [
        [name for part in named.values() for name, _ in part if not name.startswith("table")]
        for named in (model.get_stepped_roles(), model.get_distilled_roles())
    ]
    assert not set(parts[0]) & set(parts[1])
    assert set(parts[0]) | set(parts[1]) == set(model.get_saved_parameters())
    assert float(whole) == 0.0
    apart = sum(float(model.compute_l2_sp(names)) for names in parts)
    assert apart == pytest.approx(
        float(model.compute_l2_sp(model.get_saved_parameters())), rel=1e-5
    )
    assert apart > 0
