"""What a run costs and where its time goes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.batches.loader import EpochBatchSampler, make_train_loader
from recsys.encoders.pairs import PairLayout
from recsys.fit.__main__ import main
from recsys.recommender.flops import compute_pair_lengths, find_heads
from recsys.recommender.parameters import ENCODERS
from recsys.recommender.trainable import TrainableRecommender
from recsys.recommender.training_counts import TrainingCounts
from recsys.runtime.stopwatch import STAGES, STEP, Stopwatch
from recsys.training import profiling
from recsys.types import Ragged

CROSS = [
    "architecture=cross_encoder",
    "objective=sampled_softmax",
    "evaluation.protocol=candidates",
    "evaluation.candidates=10",
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def finished(folder):
    (run,) = folder.iterdir()
    return run, json.loads((run / "result.json").read_text())["cost"]


def test_a_stage_takes_its_time_from_the_one_around_it(monkeypatch):
    clock = iter([1.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    watch = Stopwatch(True, {"encode": 1000.0})
    watch.begin(0.0)
    watch.end_startup()
    with watch.time_stage("loss"), watch.time_stage("encode"):
        pass
    with watch.time_stage("evaluation"), watch.time_stage("encode"):
        pass
    seconds = watch.get_seconds()
    assert seconds == dict.fromkeys(STAGES, 0.0) | {
        "start": 1,
        "loss": (4 - 3) + (16 - 8),
        "encode": 1000 + (8 - 4),
        "evaluation": 256 - 32,
        "other": (3 - 1) + (32 - 16) + (512 - 256),
    }
    assert sum(seconds.values()) == 1000 + 512


def test_a_stopwatch_that_is_off_does_nothing(monkeypatch):
    watch = Stopwatch(False)
    watch.begin(0.0)
    monkeypatch.setattr(time, "monotonic", lambda: pytest.fail("it took the time"))
    with watch.time_stage("encode"):
        watch.push("loss")
        watch.end_startup()
        watch.pop()
    assert set(watch.get_seconds().values()) == {0.0}


@pytest.mark.parametrize("cached", ["true", "false"])
@pytest.mark.parametrize(
    "tuning",
    [
        ["tuning=full"],
        ["tuning=full", "tuning.layers=1"],
        ["tuning=lora"],
        ["tuning=lora", "tuning.layers=2", "tuning.targets=attention"],
        ["tuning=lora", "tuning.layers=2", "tuning.dora=true", "encoder.chunk_tokens=16"],
        ["tuning=lora", "tuning.dora=true", "tuning.dropout=0.1"],
        ["tuning=adapter", "tuning.layers=1", "tuning.placement=houlsby"],
        ["tuning=adapter", "tuning.layers=2"],
    ],
    ids=" ".join,
)
def test_operations_are_those_that_torch_counts(shop_words, tuning, cached):
    words = [*shop_words, *tuning, f"encoder.cache={cached}", "regularization.dropout=0"]
    made = build.assemble(compose([*words, "architecture.heads=false"]))
    model = made.recommender.train()
    model.encoder.model.set_attn_implementation("eager")  # torch knows no formula for the CPU's
    assert (model.encoding.prefix is not None) is (
        cached == "true" and "layers" in " ".join(tuning)
    )
    batch = next(iter(made.datamodule.train_dataloader()))
    model.work.get_rate(model.encoder, model.encoding.prefix)
    model.work.counting = True
    # torch has a formula for the product that is added to a copy only, not for that in place.
    in_place = {torch.ops.aten.addmm_: lambda out, a, b, **_: 2 * a[0] * a[1] * b[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        model.index(batch.plan).sum().backward()
    # All texts have two words and are not padded.
    assert model.work.texts == len(batch.plan.items)
    assert model.work.tokens == 4 * len(batch.plan.items)
    assert model.work.flops == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_operations_without_gradients_are_the_forward_pass(shop_words):
    made = build.assemble(compose([*shop_words, "tuning=full"]))
    model = made.recommender
    with torch.no_grad():
        forward = model.work.get_rate(model.encoder, None)
    both = model.work.get_rate(model.encoder, None)
    layer = 4 * 32 * 32 + 2 * 32 * 64
    assert forward.token == 3 * 2 * layer
    assert forward.square == 3 * 4 * 32
    assert both.square == 3 * forward.square
    # Nothing asks for the gradient of what the first layer's queries, keys and values read.
    assert both.token == 3 * forward.token - 3 * 2 * 32 * 32
    assert len(forward.shapes) == 3 * 6


@pytest.mark.parametrize(
    "asked",
    [["architecture.score=cosine"], ["architecture.score=mlp", "objective=sampled_softmax"]],
    ids=["cosine", "mlp"],
)
def test_operations_of_heads_and_scores_are_those_that_torch_counts(shop_words, asked):
    made = build.assemble(compose([*shop_words, "tuning=frozen", *asked]))
    model = made.recommender.train()
    batch = next(iter(made.datamodule.train_dataloader()))
    model.encode_items(batch.plan)
    for module in find_heads(model, ENCODERS):
        module.register_forward_hook(model.work.count_linear)
    around = model.parts.around(model._score_and_count)
    model.work.counting = True
    with FlopCounterMode(display=False) as counter:
        model.parts.objective(model(batch), batch, around).total.backward()
    # The products of queries with their own few candidates are left out.
    own = counter.get_total_flops() - model.work.flops
    assert 0 <= own <= 6 * 32 * batch.candidates.numel()
    assert own < 0.25 * model.work.flops


def test_lengths_of_pairs_are_those_of_the_joint_pass(shop_words):
    made = build.assemble(compose([*shop_words, *CROSS, "encoder.max_length=9"]))
    encoder = made.recommender.encoder
    sizes = [(0, 0), (1, 1), (3, 2), (9, 1), (1, 9), (9, 9)]
    first, second = zip(*sizes, strict=True)
    texts = (Ragged(torch.ones(sum(x), dtype=torch.long), x) for x in (first, second))
    each = torch.arange(len(sizes))
    pairing = PairLayout(*texts, each, each, encoder.specials, encoder.max_length)
    assert compute_pair_lengths(encoder, first, second) == pairing.lengths


def test_a_profile_changes_no_weight_and_no_metric(shop_words, tmp_path, capsys):
    words = [*shop_words, "tuning=lora", "tuning.dropout=0.1", "trainer.log_every=1"]
    costs, weights, tests = [], [], []
    for profile in ("false", "true"):
        out = tmp_path / profile
        assert main([*words, f"output={out}", f"profile={profile}"]) == 0
        run, cost = finished(out)
        costs.append(cost)
        tests.append((run / "cases.parquet").read_bytes())
        weights.append(load_file(run / "checkpoints" / "best.safetensors"))
        assert (run / "profile.json").is_file() is (profile == "true")
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[1][name], value) for name, value in weights[0].items())
    assert tests[0] == tests[1]
    for name in ("texts", "tokens", "train_flops"):
        assert costs[0][name] == costs[1][name] > 0
    assert "utilisation" not in costs[0]
    written = json.loads((run / "profile.json").read_text())
    told = {name: written[name] for name in written.keys() & costs[1].keys()}
    assert told == {name: costs[1][name] for name in told}
    assert {f"{stage}_seconds" for stage in STAGES} <= told.keys()
    assert all(told[f"{stage}_seconds"] > 0 for stage in STAGES)
    # The stages leave no time out, and count none twice.
    assert sum(told[f"{stage}_seconds"] for stage in STAGES) == pytest.approx(
        costs[1]["seconds"], abs=0.05
    )
    assert told["step_seconds"] == pytest.approx(sum(told[f"{stage}_seconds"] for stage in STEP))
    assert told["utilisation"] > 0
    assert told["tokens_per_second"] == pytest.approx(told["texts_per_second"] * 4)
    assert "utilisation" in capsys.readouterr().out


def test_texts_and_tokens_are_those_of_the_batches(shop_words, tmp_path):
    assert main([*shop_words, "profile=true", "data.queries=all"]) == 0
    _, cost = finished(tmp_path / "runs")
    run, _ = finished(tmp_path / "runs")
    counts = json.loads((run / "profile.json").read_text())["counts"]
    made = build.assemble(compose([*shop_words, "data.queries=all"]))
    loader = made.datamodule.train_dataloader()
    batches = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        batches += list(loader)
    assert cost["texts"] == sum(len(b.plan.items) for b in batches)
    assert cost["tokens"] == 4 * cost["texts"]
    references = sum(int((b.history >= 0).sum() + (b.candidates >= 0).sum()) for b in batches)
    assert counts["references"] == references > counts["unique"] == cost["texts"]
    assert cost["unique_share"] == pytest.approx(cost["texts"] / references)
    assert cost["padding_share"] == 0


@pytest.mark.parametrize("more", [["architecture.user=text"], CROSS], ids=["text", "cross"])
def test_padding_is_what_the_micro_batches_hold_too_much(shop_words, tmp_path, monkeypatch, more):
    # `plan` makes all micro-batches; in training it is asked once for each lot of texts.
    planned = []

    def noted(self, lengths):
        parts = list(plan(self, lengths))
        if torch.is_grad_enabled() and self.training:
            planned.append(sum(len(p) * max(lengths[i] for i in p) for p in parts))
        return iter(parts)

    from recsys.encoders.encoder import Encoder

    plan = Encoder.plan_micro_batches
    monkeypatch.setattr(Encoder, "plan_micro_batches", noted)
    asked = ["profile=true", "encoder.cache=false", "trainer.epochs=1", "data.max_history=4"]
    assert main([*shop_words, *more, *asked, "tuning=full"]) == 0
    run, cost = finished(tmp_path / "runs")
    counts = json.loads((run / "profile.json").read_text())["counts"]
    assert counts["positions"] == sum(planned) > counts["tokens"]
    assert cost["padding_share"] == pytest.approx(1 - cost["tokens"] / sum(planned))


@pytest.mark.slow
def test_a_stopped_run_counts_as_an_unbroken_one(shop_words, tmp_path, monkeypatch):
    words = [*shop_words, "profile=true", "tuning.layers=1"]
    assert main([*words, f"output={tmp_path / 'straight'}"]) == 0
    _, straight = finished(tmp_path / "straight")
    step, calls = TrainableRecommender.training_step, []

    def stopped(self, batch, index):
        calls.append(index)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainableRecommender, "training_step", stopped)
        assert main([*words, f"output={tmp_path / 'runs'}"]) == 143
    (folder,) = (tmp_path / "runs").iterdir()
    start = json.loads((folder / "start.json").read_text())
    assert start["stages"]["encode"] > 0
    start["stages"]["encode"] += 500.0
    start["seconds"] += 500.0
    (folder / "start.json").write_text(json.dumps(start))
    assert main([f"resume={folder}"]) == 0
    _, cost = finished(tmp_path / "runs")
    for name in ("texts", "tokens", "train_flops", "padding_share", "unique_share"):
        assert cost[name] == pytest.approx(straight[name])
    assert 500 < cost["encode_seconds"] < 600
    assert sum(cost[f"{stage}_seconds"] for stage in STAGES) == pytest.approx(
        cost["seconds"], abs=0.1
    )


@pytest.mark.slow
def test_two_processes_count_what_both_of_them_read(shop_words, tmp_path):
    words = [*shop_words, "trainer.threads=1", "trainer.epochs=1", "profile=true"]
    hidden = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "RECSYS_RUN_FOLDER")
    done = subprocess.run(
        [sys.executable, "-m", "recsys.fit", *words, "trainer.devices=2", "tracking.wandb=off"],
        env={k: v for k, v in os.environ.items() if k not in hidden and "MASTER_" not in k},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _, cost = finished(tmp_path / "runs")
    data = build.assemble(compose(words)).datamodule
    shares = [
        list(make_train_loader(EpochBatchSampler(data.plan, rank, 2), data.make_train_batch, 0))
        for rank in (0, 1)
    ]
    counts = [sum(len(batch.plan.items) for batch in share) for share in shares]
    assert min(counts) > 0
    assert cost["texts"] == sum(counts)
    assert cost["tokens"] == 4 * cost["texts"]
    assert 0 < cost["unique_share"] < 1
    assert cost["utilisation"] > 0


def test_what_a_profile_says_follows_from_what_was_measured():
    seconds = dict.fromkeys(STAGES, 1.0) | {"data": 4.0, "backward": 2.0}
    counts = TrainingCounts(10, 60, 8e9, positions=80, references=40, unique=10)
    found = profiling.compute_profile(seconds, counts, peak=2.0, devices=2)
    assert found["step_seconds"] == 10
    assert found["texts_per_second"] == 1
    assert found["tokens_per_second"] == 6
    assert found["padding_share"] == 0.25
    assert found["unique_share"] == 0.25
    assert found["utilisation"] == 8 / (2 * 5 * 2.0)
    none = profiling.compute_profile(dict.fromkeys(STAGES, 0.0), TrainingCounts(), None, 1)
    assert none["utilisation"] is None
    assert none["padding_share"] is None


def test_the_peak_is_that_of_all_maps_together():
    before = torch.get_rng_state()
    shapes = [(256, 256), (256, 1024), (256, 256)]
    peak, found = profiling.measure_gemm_peak(shapes, 64, torch.float32, torch.device("cpu"))
    assert torch.equal(before, torch.get_rng_state())
    assert [(g.inputs, g.outputs) for g in found] == [(256, 256), (256, 1024)]
    rates = [g.gflops for g in found]
    assert min(rates) <= peak <= max(rates)
    work, one = (2, 4), [1 / r for r in rates]
    wanted = sum(work) / sum(w * s for w, s in zip(work, one, strict=True))
    assert peak == pytest.approx(wanted)


def test_actions_of_the_trainer_have_their_stages():
    assert profiling.find_stage("[_TrainingEpochLoop].train_dataloader_next") == "data"
    assert profiling.find_stage("[Strategy]SingleDeviceStrategy.training_step") == "loss"
    assert profiling.find_stage("[Strategy]DDPStrategy.backward") == "backward"
    assert profiling.find_stage("[LightningModule]Model.optimizer_step") == "optimiser"
    assert profiling.find_stage("[Callback]Watch.on_before_optimizer_step") == "other"
    assert profiling.find_stage("[LightningModule]Model.on_before_optimizer_step") is None
    assert profiling.find_stage("run_training_batch") is None
