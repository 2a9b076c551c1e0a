"""The command as a user types it: what it says, leaves and refuses."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertForMaskedLM, BertModel

from recsys.compare.finished_runs import read_run
from recsys.compare.measures.cost import compute_costs
from recsys.compare.methods import group_runs
from recsys.config.choices import PRETRAINING, list_experiments
from recsys.config.compose import compose_pretraining, list_choices
from recsys.encoders.pretrained.load import load_encoder, load_pretrained
from recsys.encoders.pretrained.sentence_transformers import read_embedding_spec
from recsys.encoders.pretrained.source import ModelFiles
from recsys.errors import ConfigError
from recsys.fit.__main__ import main as fit
from recsys.pretrain.__main__ import main
from recsys.pretrain.assemble import assemble
from recsys.pretrain.command import find_pretraining, pretrain
from recsys.runtime.signals import Interrupted
from recsys.testing.shop import write_encoder
from recsys.types import Ragged


@pytest.fixture
def words(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    return [*shop_words, "trainer.max_steps=3", "trainer.threads=1", "tracking.wandb=off"]


def swap(words, key, value):
    return [*(word for word in words if not word.startswith(f"{key}=")), f"{key}={value}"]


def copy_encoder(folder, target):
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def run_of(words, *more):
    return pretrain(compose_pretraining([*words, *more]))


def encode(spec, **how):
    with torch.no_grad():
        encoder = load_encoder(str(spec), **{"pooling": "auto", "max_length": 32, **how}).eval()
        return encoder(Ragged(torch.arange(4, 14), (2, 3, 5)))


def test_a_run_takes_what_a_pretraining_leaves_by_its_folder(words, tmp_path, capsys):
    assert main(words) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    said = capsys.readouterr().out
    assert "co_occurrence: 120 pairs an epoch of 40 users and 30 of 30 items; 6 examples" in said
    assert f"use it: python -m recsys.fit ... encoder.model={folder}" in said
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {
        "pretraining.yaml",
        "start.json",
        "result.json",
        "validations.jsonl",
        "log/metrics.csv",
        *(f"encoder/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")),
        "encoder/tokenizer_config.json",
    }
    result = json.loads((folder / "result.json").read_text())
    assert result["cost"]["trained_parameters"] > 0 < result["cost"]["train_flops"]
    assert result["validation"]["steps"] == result["validation"]["planned_steps"] == 3
    own = [w for w in swap(words, "encoder.model", folder) if "max_steps" not in w]
    assert fit([*own, "tuning=frozen", "trainer.max_steps=0"]) == 0
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path != folder)
    told = json.loads((run / "result.json").read_text())
    encoder, (source,) = told["encoder"], told["built_on"]
    assert source["run"] == str(folder)
    assert source["sha256"] == encoder["sha256"]
    assert source["cost"]["method_cpu_seconds"] == result["cost"]["method_cpu_seconds"] > 0
    assert encoder["model"] == str(folder)
    assert encoder["sha256"] == result["pretraining"]["encoder_sha256"]


def test_seeds_of_a_pretraining_are_seeds_of_one_method(words, tmp_path):
    """However their weights differ; and `compare` counts what they cost with what is kept."""
    folders = [run_of(words, f"seed={seed}", f"output={tmp_path / 'p'}") for seed in (0, 1)]
    folders.append(run_of(words, "pretraining.window=1", f"output={tmp_path / 'q'}"))
    for seed, folder in zip((0, 1, 0), folders, strict=True):
        own = [w for w in swap(words, "encoder.model", folder) if "max_steps" not in w]
        own += [f"seed={seed}", "tuning=frozen", "trainer.max_steps=0"]
        assert fit([*own, f"output={tmp_path / 'runs' / folder.name}"]) == 0
    runs = [read_run(path.parent) for path in (tmp_path / "runs").glob("*/*/result.json")]
    methods = group_runs(runs)
    assert sorted(method.seeds for method in methods) == [[0], [0, 1]]
    assert all(method.trains for method in methods)
    (row,) = (run.built_on[0] for run in runs if run.seed == 1)
    assert row["cost"]["method_cpu_seconds"] > 0
    for cost in map(compute_costs, methods):
        assert cost["method_kept_cpu_seconds"] > cost["method_cpu_seconds"] + 0.01


def test_weights_and_biases_gets_the_loss_offline(words, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = run_of(swap(words, "tracking.wandb", "offline"))
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert "kind: pretrain" in (folder / "pretraining.yaml").read_text()


FOLDED = sorted(set(list_choices("tuning")) - {"frozen", "adapter", "prefix"})


@pytest.mark.parametrize("tuning", FOLDED)
def test_what_a_method_added_is_folded_into_the_folder(words, tiny_bert, monkeypatch, tuning):
    """The vectors of the folder alone are those that were trained."""
    seen = []

    def spy(executor, write=None):
        model = executor.made.model.eval()
        with torch.no_grad():
            seen.append(model.encoder(Ragged(torch.arange(4, 14), (2, 3, 5))))
        write(executor)

    from recsys.pretrain.run import PretrainingExecutor

    write = PretrainingExecutor._write_encoder
    monkeypatch.setattr(PretrainingExecutor, "_write_encoder", lambda self: spy(self, write))
    more = ["tuning.method=oft", "tuning.options.oft_block_size=8"] if tuning == "peft" else []
    folder = run_of(words, f"tuning={tuning}", *more, "checkpoint.pick=last")
    torch.testing.assert_close(encode(folder), seen[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(encode(tiny_bert), seen[0], atol=1e-4)


@pytest.mark.parametrize("tuning", ["adapter", "prefix"])
def test_what_cannot_be_folded_is_refused_before_data_is_read(words, tuning, tmp_path):
    own = swap(words, "data.source.interactions", tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match="cannot be folded into its weights"):
        run_of(own, f"tuning={tuning}")
    assert not (tmp_path / "runs").exists()


def test_pooling_dense_maps_and_prompts_of_the_folder_are_kept(words, tiny_bert, tmp_path):
    source = copy_encoder(tiny_bert, tmp_path / "st")
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")]
    modules = [{"type": f"s.{kind}", "path": path} for kind, path in [*kinds, ("Normalize", "3_N")]]
    (source / "modules.json").write_text(json.dumps(modules))
    for name in ("1_Pooling", "2_Dense"):
        (source / name).mkdir()
    (source / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    sizes = {"in_features": 32, "out_features": 8, "bias": True}
    (source / "2_Dense/config.json").write_text(json.dumps(sizes))
    torch.manual_seed(0)
    dense = {"linear.weight": torch.randn(8, 32), "linear.bias": torch.randn(8)}
    save_file(dense, source / "2_Dense/model.safetensors")
    (source / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "red ", "document": "blue "}})
    )
    (source / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20}))
    own = [w for w in swap(words, "encoder.model", source) if "max_length" not in w]
    folder = run_of(own, "encoder.item_prompt='green '", "checkpoint.pick=last")
    spec, before = (read_embedding_spec(ModelFiles.locate(str(f))) for f in (folder, source))
    assert (spec.pooling, spec.unit, spec.max_length) == (before.pooling, True, 20)
    assert (spec.query_prompt, spec.item_prompt) == ("red ", "green ")
    trained = load_file(folder / "encoder/2_Dense/model.safetensors")
    assert not torch.equal(trained["linear.weight"], dense["linear.weight"])
    assert encode(folder).shape == (3, 8)


def test_another_pooling_that_was_asked_for_is_told_by_the_folder(words):
    folder = run_of(words, "encoder.pooling=max")
    assert torch.equal(encode(folder), encode(folder / "encoder", pooling="max"))
    assert not torch.allclose(encode(folder), encode(folder, pooling="mean"))


@pytest.fixture
def masked(tmp_path):
    """An encoder with a mask token, without and with its own head."""
    (tmp_path / "bare").mkdir()
    return write_encoder(tmp_path / "bare", ("[MASK]",))


def test_the_own_head_of_a_model_tells_what_it_tells_in_transformers(words, masked, capsys):
    config = BertConfig.from_pretrained(masked)
    torch.manual_seed(1)
    BertForMaskedLM(config).save_pretrained(masked)
    own = [*swap(words, "encoder.model", masked), "pretraining=mlm", "tuning=lora"]
    run = compose_pretraining(own)
    run.trainer.precision = "fp32"
    made = assemble(run)
    task, encoder = made.data.task, made.model.encoder.eval()
    assert "the head of the model's own files" in task.describe()
    whole = BertForMaskedLM.from_pretrained(masked).eval()
    with torch.no_grad():
        states = encoder.compute_states(Ragged(torch.arange(4, 9), (5,)))
        table = encoder.model.get_input_embeddings().weight
        scores = task.head(states.values, table, made.model.work)
        ids = torch.tensor([[2, 4, 5, 6, 7, 8, 3]])
        torch.testing.assert_close(scores, whole(ids).logits[0])
    # Tied: what is trained of the embeddings is what tells tokens.
    decoder = task.head.model.get_output_embeddings().weight
    assert decoder is table


def test_a_model_without_a_head_gets_a_fresh_one_and_says_so(words, masked):
    own = [*swap(words, "encoder.model", masked), "pretraining=mlm"]
    assert "a fresh head" in assemble(compose_pretraining(own)).data.task.describe()
    folder = run_of(own)
    assert isinstance(AutoModel.from_pretrained(folder / "encoder"), BertModel)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["pretraining=simces"], "Did you mean 'simcse'"),
        (["pretraining.windw=3"], "Did you mean 'window'"),
        (["pretraining.window=0"], "pretraining.window"),
        (["pretraining.val_share=1"], "pretraining.val_share"),
        (["architecture=two_tower"], "architecture is a key of python -m recsys.fit"),
        (["tuning=frozen"], "trains nothing of the encoder"),
        (["trainer.max_steps=0"], "max_steps=0 trains nothing"),
        (["trainer.devices=2"], "runs in one process"),
        (["trainer.strategy=fsdp"], "trainer.strategy=fsdp: a pretraining"),
        (["trainer.batch_tokens=100"], "trainer.batch_tokens"),
        (["trainer.encoder_updates=half_epoch"], "trainer.encoder_updates"),
        (["trainer.batch_size=1"], "no other text to tell one from"),
        (["encoder.pooling=attention"], "no encoder folder can hold"),
        (["pretraining=mlm"], "has none; set pretraining to"),
        (["pretraining=simcse", "regularization.dropout=0"], "set regularization.dropout=0.1"),
        (["experiment=lora_two_tower"], "experiment 'lora_two_tower' is not known"),
        (["resume=nowhere"], "cannot change when a run goes on"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(words, tmp_path, capsys, more, sentence):
    assert main([*words, *more]) == 2
    said = capsys.readouterr().err.splitlines()
    assert sentence in said[-1]
    assert said[-1].startswith("error: ")
    assert not (tmp_path / "runs").exists()


def test_titles_of_one_word_or_users_of_one_event_make_no_pairs(words, tmp_path, capsys):
    events = tmp_path / "few.csv"
    rows = "".join(f"u{n},0{n:02d},{1_600_000_000 + n},3\n" for n in range(9))
    events.write_text(f"who,what,when,stars\n{rows}")
    own = [*swap(words, "data.source.interactions", events), "data.split=time"]
    assert main(own) == 2
    assert "raise pretraining.window, or choose simcse" in capsys.readouterr().err


def test_where_all_users_have_all_titles_nothing_can_be_told_apart(words, tmp_path, capsys):
    events = tmp_path / "same.csv"
    rows = "".join(
        f"u{n},0{item:02d},{1_600_000_000 + item},3\n" for n in range(9) for item in range(5)
    )
    events.write_text(f"who,what,when,stars\n{rows}")
    assert main(swap(words, "data.source.interactions", events)) == 2
    assert "raise pretraining.val_share" in capsys.readouterr().err


def test_three_texts_are_the_least(words, tmp_path, capsys):
    items = tmp_path / "alike.csv"
    items.write_text("what,name\n" + "".join(f"0{n:02d},red lamp\n" for n in range(30)))
    own = [*swap(words, "data.source.items", items), "pretraining=tsdae"]
    assert main(own) == 2
    assert "needs three different item texts" in capsys.readouterr().err


def test_a_pretraining_is_no_run_and_says_what_it_is(words, tmp_path, capsys):
    folder = run_of(words)
    assert fit([f"resume={folder}"]) == 2
    assert f"encoder.model={folder}" in capsys.readouterr().err
    assert fit([*words, "resume=last", f"output={folder.parent}"]) == 2
    assert main([f"resume={folder}"]) == 2
    assert "is finished" in capsys.readouterr().err
    for path in (folder / "encoder").iterdir():
        path.unlink()
    os.rmdir(folder / "encoder")
    with pytest.raises(ConfigError, match="not finished; go on with it"):
        load_pretrained(str(folder), pooling="auto", max_length=None)


def test_a_run_knows_no_pretraining(words, capsys):
    assert fit([*words, "pretraining=mlm"]) == 2
    assert "pretraining is a key of python -m recsys.pretrain" in capsys.readouterr().err


def test_a_stop_after_the_last_step_trains_nothing_again(words, monkeypatch):
    from recsys.pretrain import run

    whole, write = run_of(words), run.write_encoder_folder

    def stop(path, loaded, pooling):
        write(path, loaded, pooling)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(run, "write_encoder_folder", stop)
        with pytest.raises(Interrupted):
            run_of(words)
    (folder,) = (path for path in whole.parent.iterdir() if path != whole)
    assert not (folder / "result.json").exists()
    monkeypatch.setattr("recsys.pretrain.module.PretrainingModule.compute_loss", None)
    assert pretrain(*find_pretraining([f"resume={folder}"])) == folder
    for name in ("model.safetensors", "config.json"):
        assert (folder / "encoder" / name).read_bytes() == (whole / "encoder" / name).read_bytes()


def test_what_changes_nothing_is_said(words, capsys):
    run_of(words, "data.queries=all", "encoder.cache=false", "tuning=full")
    said = capsys.readouterr().out
    assert "data.queries changes nothing in training: a pretraining has no queries" in said
    assert "encoder.cache changes nothing" in said


def test_help_and_configuration(words, capsys):
    assert main(["--help"]) == 0
    assert "pretraining=  co_occurrence, mlm, simcse, tsdae" in capsys.readouterr().out
    for word in ("pretraining=tsdae", "pretraining", "experiment", "optimizer", "seed", "all"):
        assert main(["--help", word]) == 0
    assert "pretraining.delete=0.6" in capsys.readouterr().out
    assert main(["--help", "architecture"]) == 2
    assert "is no key, group or axis" in capsys.readouterr().err
    assert main(["experiment=tsdae", *words, "--print-config"]) == 0
    out = capsys.readouterr().out
    assert "name: tsdae" in out
    assert "architecture" not in out


@pytest.mark.parametrize("name", list_experiments(PRETRAINING))
def test_each_shipped_experiment_runs(words, masked, tmp_path, name):
    own = swap(words, "encoder.model", masked)
    assert main([f"experiment={name}", *own]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith(name)
