"""Whole runs on a GPU against the same runs on the CPU, and what a step asks of the host."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.fit.__main__ import main as fit
from recsys.fit.command import resolve
from recsys.testing.syncs import record_syncs

EXACT = ["regularization.dropout=0", "trainer.epochs=2", "tuning=full", "optimizer.lr=0.003"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def run(shop_words: Sequence[str], folder: Path, *words: str) -> dict:
    """The result of a run."""
    base = [w for w in shop_words if not w.startswith("trainer.accelerator")]
    given = {w.partition("=")[0] for w in words}
    own = [w for w in EXACT if w.partition("=")[0] not in given]
    assert fit([*base, *own, *words, f"output={folder}"]) == 0
    (made,) = folder.iterdir()
    return json.loads((made / "result.json").read_text())


def read_losses(folder: Path) -> list[float]:
    """The training losses that a run logged."""
    (made,) = folder.iterdir()
    header, *rows = (made / "log" / "metrics.csv").read_text().splitlines()
    place = header.split(",").index("train/loss")
    return [float(row.split(",")[place]) for row in rows if row.split(",")[place]]


def test_a_run_in_full_precision_has_the_metrics_of_the_cpu(shop_words, tmp_path) -> None:
    cpu = run(shop_words, tmp_path / "cpu", "trainer.accelerator=cpu")
    gpu = run(shop_words, tmp_path / "gpu", "trainer.precision=fp32")
    (made,) = (tmp_path / "gpu").iterdir()
    assert "accelerator: gpu" in (made / "config.yaml").read_text()
    for name in ("ndcg@10", "mrr", "hr@10"):
        assert gpu["test"][name] == pytest.approx(cpu["test"][name], abs=0.05), name


@pytest.mark.parametrize("precision", ["bf16-mixed", "fp16-mixed"])
@pytest.mark.parametrize("packing", ["off", "auto"])
def test_half_precision_trains_as_far_as_the_cpu(shop_words, tmp_path, precision, packing) -> None:
    words = [f"trainer.precision={precision}", f"encoder.packing={packing}"]
    run(shop_words, tmp_path / "cpu", "trainer.accelerator=cpu", "trainer.log_every=1")
    run(shop_words, tmp_path / "gpu", *words, "trainer.log_every=1")
    exact, half = read_losses(tmp_path / "cpu"), read_losses(tmp_path / "gpu")
    assert len(exact) == len(half) > 4
    assert half[0] == pytest.approx(exact[0], rel=0.02)
    assert half[-1] == pytest.approx(exact[-1], rel=0.2)


def test_auto_is_bf16_and_compiles(shop_words, tmp_path, capfd) -> None:
    result = run(shop_words, tmp_path / "runs", "encoder.compile=auto")
    assert result["test"]
    (made,) = (tmp_path / "runs").iterdir()
    config = (made / "config.yaml").read_text()
    assert "precision: bf16-mixed" in config
    assert "compile: 'on'" in config or 'compile: "on"' in config
    assert "texts are packed" in capfd.readouterr().err


class Steps:
    """Optimiser steps of an assembled run, as the Trainer makes them."""

    def __init__(self, words: Sequence[str], device: torch.device) -> None:
        self.made = build.assemble(resolve(compose(list(words))))
        self.model = self.made.recommender
        self.fabric = Fabric(accelerator="cuda", devices=1, precision="bf16-mixed")
        self.fabric.accumulate_grad_batches = 1
        self.model.fabric = self.fabric
        self.model.to(device).train()
        self.made.datamodule.trainer = None
        self.batch = next(iter(self.made.datamodule.train_dataloader()))
        self.device = device
        roles = self.model.get_stepped_roles()
        self.optimizer, _ = self.model.parts.optimise(roles, frozenset(), 100)

    def step(self) -> torch.Tensor:
        batch = self.batch.to(self.device, non_blocking=True)
        self.optimizer.zero_grad()
        with self.fabric.autocast():
            loss = self.model.training_step(batch, 0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.get_trained_parameters().values(), 1.0)
        self.optimizer.step()
        return loss.detach()


@pytest.fixture
def gpu_words(shop_words):
    kept = [w for w in shop_words if not w.startswith(("trainer.accelerator", "optimizer.lr"))]
    return [*kept, "trainer.accelerator=gpu", "trainer.precision=bf16-mixed", "tracking.wandb=off"]


def test_adamw_is_one_fused_pass_over_parameters_on_the_gpu(gpu_words, gpu) -> None:
    steps = Steps([*gpu_words, "tuning=full"], gpu)
    before = [p.detach().clone() for p in steps.model.get_trained_parameters().values()]
    assert torch.isfinite(steps.step())
    assert all(group["fused"] for group in steps.optimizer.param_groups)
    for p in steps.model.get_trained_parameters().values():
        if p.grad is not None:
            assert steps.optimizer.state[p]["exp_avg"].device.type == "cuda"
            assert p.isfinite().all()
    assert any(
        not torch.equal(old, p)
        for old, p in zip(before, steps.model.get_trained_parameters().values(), strict=True)
    )


@pytest.mark.parametrize("packing", ["off", "auto"])
@pytest.mark.parametrize(
    "tuning",
    ["tuning=full", "tuning=lora tuning.layers=all", "tuning=adapter", "tuning=frozen"],
)
def test_no_step_waits_for_the_gpu(gpu_words, gpu, tuning, packing) -> None:
    words = [*gpu_words, *tuning.split(), f"encoder.packing={packing}", "encoder.cache=false"]
    if tuning == "tuning=frozen":
        words[-1] = "encoder.cache_place=memory"
    steps = Steps(words, gpu)
    assert dict(record_syncs(steps.step)) == {}


def test_a_wait_is_counted(gpu) -> None:
    x = torch.ones(3, device=gpu)
    assert record_syncs(lambda: x.sum().item()).total() == 1
    assert record_syncs(lambda: x.sum()).total() == 0


@pytest.mark.parametrize("kind", ["adamw_8bit", "paged_adamw", "paged_adamw_8bit"])
def test_optimisers_of_bitsandbytes_train(shop_words, tmp_path, kind) -> None:
    pytest.importorskip("bitsandbytes")
    run(shop_words, tmp_path / "runs", f"optimizer.kind={kind}", "trainer.log_every=1")
    losses = read_losses(tmp_path / "runs")
    assert losses[-1] < losses[0]
