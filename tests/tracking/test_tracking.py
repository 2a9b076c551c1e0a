"""What is logged, where it goes, and that nothing leaves the machine unasked."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
import torch

from recsys.assembly import build
from recsys.boards import offline_run
from recsys.config.compose import compose
from recsys.data.batches.examples import TEST
from recsys.fit.__main__ import main
from recsys.recommender.optim import set_dropout
from recsys.recommender.trainable import TrainableRecommender
from recsys.runs import provenance
from recsys.runs.display import format_title, list_columns
from recsys.runtime.hardware import choose_precision
from recsys.runtime.memory import MemoryMonitor, read_anonymous_mb
from recsys.tracking.csv_log import CsvLog
from recsys.tracking.wandb_log import choose_wandb_mode
from recsys.tracking.wandb_run import find_unsent_reason


@pytest.fixture
def words(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    return [*shop_words, "trainer.batch_size=8", "optimizer.lr=3e-4"]


def only(tmp_path):
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "k"}, "online"),
        ({"NETRC": "netrc"}, "online"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, "off"),
    ],
)
def test_auto_is_online_only_with_a_key(tmp_path, monkeypatch, environment, mode):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password k\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name, value in environment.items():
        monkeypatch.setenv(name, str(tmp_path / value) if name == "NETRC" else value)
    assert choose_wandb_mode("auto") == mode
    assert choose_wandb_mode("off") == "off"


def test_an_offline_run_keeps_its_id_says_how_to_sync_and_holds_no_texts(
    words, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("WANDB_MODE")
    assert main([*words, "tracking.wandb=offline", "tracking.tensorboard=true"]) == 0
    folder = only(tmp_path)
    assert f"wandb sync {folder / 'wandb'}/offline-run-*" in capsys.readouterr().out
    (run,) = (folder / "wandb").glob("offline-run-*")
    assert run.name.endswith(json.loads((folder / "start.json").read_text())["wandb"])
    sent = b"".join(p.read_bytes() for p in run.rglob("*") if p.is_file())
    assert b"tuning=lora" in sent
    assert b"val/ndcg@10" in sent
    assert b"closing table" in sent
    assert b"red lamp" not in sent
    assert list((folder / "tensorboard").glob("events*"))


def test_a_short_training_leaves_a_curve_of_its_loss(words, tmp_path):
    assert main([*words, "trainer.max_steps=30", "trainer.epochs=9"]) == 0
    rows = pl.read_csv(only(tmp_path) / "log" / "metrics.csv")
    rows = rows.filter(pl.col("train/loss").is_not_null())
    assert rows["step"].to_list() == list(range(3, 31, 3))


SECRET = "geheim-4711"


def test_no_word_of_the_command_reaches_any_file_of_its_run(words, tmp_path, monkeypatch):
    """A word may be a password, as `storage=` of a sweep is; the address of a repository, too."""
    monkeypatch.setattr("sys.argv", ["fit", f"storage=postgresql://me:{SECRET}@host/db"])
    for command in (["init"], ["remote", "add", "origin", f"https://me:{SECRET}@host/code"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    assert main([*words, "tracking.wandb=offline"]) == 0
    assert sys.argv[1:] == [f"storage=postgresql://me:{SECRET}@host/db"]
    found = [path for path in only(tmp_path).rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in found)
    assert [path for path in found if SECRET.encode() in path.read_bytes()] == []


def test_a_failed_closing_at_wandb_is_told_and_noted_and_the_result_stands(
    words, tmp_path, monkeypatch, capsys
):
    def lose(*args, **kwargs):
        raise FileNotFoundError("[Errno 2] No such file: wandb-media/x.table.json")

    monkeypatch.setattr("wandb.Table", lose)
    assert main([*words, "tracking.wandb=offline"]) == 0
    folder, said = only(tmp_path), capsys.readouterr()
    assert (folder / "result.json").is_file()
    assert "warning: Weights & Biases lacks the end of this run ([Errno 2]" in said.err
    assert find_unsent_reason(folder).startswith(
        "Weights & Biases lacks the end of this run ([Errno 2]"
    )
    run = offline_run.read_logged_run(folder)
    assert run.exit == 1
    assert "validation/best" not in run.summary


def test_rates_gradients_and_distance_are_logged_by_role(words, tmp_path):
    asked = ["tuning=full", "trainer.log_every=2", "optimizer.encoder_lr=1e-4", "optimizer.clip=0"]
    assert main([*words, *asked, "optimizer.schedule=constant", "optimizer.warmup=0"]) == 0
    rows = pl.read_csv(only(tmp_path) / "log" / "metrics.csv")
    rows = rows.filter(pl.col("train/loss").is_not_null())
    assert rows["step"].to_list() == [2, 4, 6, 8, 10]
    assert rows["lr/encoder"].to_list() == pytest.approx([1e-4] * 5)
    assert rows["lr/head"].to_list() == pytest.approx([3e-4] * 5)
    assert rows["grad_norm/encoder"].min() > 0
    assert rows["distance/encoder"].is_sorted()
    assert rows["distance/encoder"][0] > 0


def test_clipping_does_not_hide_the_gradient_norm(words, tmp_path):
    for clip in ("0", "1e-3"):
        out = f"output={tmp_path / clip}"
        assert main([*words, out, "trainer.log_every=1", f"optimizer.clip={clip}"]) == 0
    first = [
        pl.read_csv(next((tmp_path / clip).iterdir()) / "log" / "metrics.csv")["grad_norm/head"]
        for clip in ("0", "1e-3")
    ]
    assert first[0].drop_nulls()[0] == first[1].drop_nulls()[0] > 1e-2


def test_max_steps_within_an_epoch_still_validates_the_end(words, tmp_path):
    assert main([*words, "trainer.max_steps=3", "trainer.log_every=1"]) == 0
    rows = pl.read_csv(only(tmp_path) / "log" / "metrics.csv")
    assert rows.filter(pl.col("val/ndcg@10").is_not_null())["step"].to_list() == [0, 3]


def test_early_stopping_ends_a_run_that_gains_nothing(words, tmp_path):
    asked = ["trainer.epochs=9", "trainer.patience=2", "optimizer.lr=0", "trainer.log_every=1"]
    assert main([*words, *asked]) == 0
    rows = pl.read_csv(only(tmp_path) / "log" / "metrics.csv")
    assert rows["step"].max() == 15  # the first epoch sets the value, two more do not beat it


def test_auto_precision_is_bf16_only_on_a_gpu_that_has_it(monkeypatch):
    assert choose_precision("auto", "cpu") == "fp32"
    assert choose_precision("fp16-mixed", "gpu") == "fp16-mixed"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert choose_precision("auto", "gpu") == "bf16-mixed"
    assert choose_precision("auto", "cpu") == "fp32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert choose_precision("auto", "gpu") == "fp32"


def test_memory_is_the_largest_of_samples_and_no_map_counts(tmp_path):
    memory = MemoryMonitor(pace=3600)
    memory.sample()
    low = memory.peak
    block = bytearray(os.urandom(1 << 20)) * 200
    memory.sample()
    high = memory.peak
    assert low + 190 < high < low + 220
    del block
    memory.sample()
    assert memory.peak == high
    # A file that is mapped and read is resident, and no memory of the process.
    (tmp_path / "states").write_bytes(bytes(400 << 20))
    before = read_anonymous_mb()
    states = np.memmap(tmp_path / "states", mode="r")
    assert int(states.sum()) == 0
    assert read_anonymous_mb() < before + 20


def test_a_peak_between_the_steps_is_seen(words, tmp_path, monkeypatch):
    """Half a GiB for a tenth of a second, within a step and given back before it ends."""
    inner = TrainableRecommender.training_step

    def step(self, *args):
        block = torch.ones(1 << 27)
        time.sleep(0.1)
        del block
        return inner(self, *args)

    monkeypatch.setattr(TrainableRecommender, "training_step", step)
    memory = MemoryMonitor(pace=3600)
    memory.sample()
    assert main([*words, "trainer.max_steps=2"]) == 0
    cost = json.loads((only(tmp_path) / "result.json").read_text())["cost"]
    assert cost["anonymous_peak_mb_sampled"] > memory.peak + 500
    assert cost["largest_rank_peak_mb_sampled"] == cost["anonymous_peak_mb_sampled"]
    assert cost["ranks"] == 1


def test_a_result_names_encoder_split_and_lists(words, tmp_path, tiny_bert):
    asked = [*words, "evaluation.protocol=candidates", "evaluation.candidates=10"]
    asked += ["evaluation.monitor=auc"]
    assert main(asked) == 0
    result = json.loads((only(tmp_path) / "result.json").read_text())
    weights = hashlib.sha256((tiny_bert / "model.safetensors").read_bytes()).hexdigest()
    own = {"model": str(tiny_bert), "revision": None, "sha256": weights}
    assert own.items() <= result["encoder"].items()
    made = build.assemble(compose(asked))
    assert (
        result["data"].items()
        >= provenance.compute_data_digests(made.split, made.datamodule.lists).items()
    )
    assert result["test"]["cases"] == 40
    assert result["test"]["undefined/auc"] == 0
    role = made.split.role.copy()
    role[0] = TEST
    other = dataclasses.replace(made.split, role=role)
    assert (
        provenance.compute_data_digests(other, {})["roles_sha256"] != result["data"]["roles_sha256"]
    )
    lists = made.datamodule.lists[TEST]
    swapped = dataclasses.replace(lists, candidates=lists.candidates[:, ::-1])
    found = provenance.compute_data_digests(made.split, {TEST: swapped})["lists_sha256"]["test"]
    assert found != result["data"]["lists_sha256"]["test"]


@pytest.mark.parametrize(
    ("asked", "names", "heading"),
    [
        ([], ["hr@10", "ndcg@10", "mrr", "warm/ndcg@10", "cold/ndcg@10"], "catalog"),
        (
            ["evaluation.k=[10,20]", "evaluation.monitor=hr@20"],
            ["hr@20", "ndcg@20", "mrr", "warm/hr@20", "cold/hr@20"],
            "all items",
        ),
        (
            ["evaluation.protocol=candidates", "evaluation.candidates=50"],
            ["hr@10", "ndcg@10", "mrr", "auc", "warm/ndcg@10", "cold/ndcg@10"],
            "candidate lists of 50",
        ),
        (
            ["evaluation.protocol=labels", "evaluation.monitor=auc"],
            ["hr@10", "ndcg@10", "mrr", "auc", "warm/auc", "cold/auc"],
            "labelled events",
        ),
    ],
)
def test_the_closing_table_follows_protocol_and_monitor(asked, names, heading):
    options = compose(asked).evaluation
    assert list_columns(options) == names
    assert heading in format_title(options)


def test_dropout_reaches_modules_and_attention():
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

    small = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    bert = BertModel(BertConfig(vocab_size=9, **small))
    set_dropout(bert, 0.5)
    assert {m.p for m in bert.modules() if isinstance(m, torch.nn.Dropout)} == {0.5}
    llama = LlamaModel(LlamaConfig(vocab_size=9, num_key_value_heads=2, **small)).train()
    ids = torch.arange(8)[None]
    assert torch.equal(llama(ids).last_hidden_state, llama(ids).last_hidden_state)
    set_dropout(llama, 0.5)
    assert not torch.equal(llama(ids).last_hidden_state, llama(ids).last_hidden_state)
    before = [m.p for m in bert.modules() if isinstance(m, torch.nn.Dropout)]
    set_dropout(bert, None)
    assert [m.p for m in bert.modules() if isinstance(m, torch.nn.Dropout)] == before


def test_the_log_is_taken_back_to_a_step(tmp_path):
    log = CsvLog(tmp_path / "metrics.csv")
    for step in range(4):
        log.log_metrics({"a": float(step)}, step)
    log.log_metrics({"b": 1.0}, 3)
    log.save()
    again = CsvLog(tmp_path / "metrics.csv")
    again.rewind(1)
    again.log_metrics({"b": 2.0}, 2)
    again.save()
    assert (tmp_path / "metrics.csv").read_text().split() == [
        "step,a,b",
        "0,0.0,",
        "1,1.0,",
        "2,,2.0",
    ]
    assert not os.path.exists(tmp_path / "metrics.csv.tmp")
