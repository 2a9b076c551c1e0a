"""Where the time of a run goes, measured where it is asked for."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import lightning.pytorch as lp
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import Profiler
from torch import Tensor, nn

from recsys.recommender.trainable import TrainableRecommender
from recsys.recommender.training_counts import TrainingCounts
from recsys.runtime.files import PROFILE, write_atomic
from recsys.runtime.hardware import Asked
from recsys.runtime.stopwatch import EVALUATION, OTHER, STAGES, STEP, Stopwatch

GEMM_SECONDS = 0.15
"""How long a shape is measured for, at least."""

GEMM_ROUNDS = 8
"""How often, at least."""

DTYPES: dict[Asked, torch.dtype] = {
    "fp32": torch.float32,
    "bf16-mixed": torch.bfloat16,
    "bf16-true": torch.bfloat16,
    "fp16-mixed": torch.float16,
}
"""What matrices are multiplied in."""


class StageProfiler(Profiler):
    """Hands the Trainer's own actions to the stopwatch.

    Args:
        watch: The stopwatch.
    """

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self.watch = watch

    def start(self, action_name: str) -> None:
        """Enters the stage of an action, if it is one."""
        stage = find_stage(action_name)
        if stage is not None:
            self.watch.push(stage)

    def stop(self, action_name: str) -> None:
        """Leaves it."""
        if find_stage(action_name) is not None:
            self.watch.pop()

    def describe(self) -> None:
        """Nothing: the run tells at its end."""


def find_stage(action: str) -> str | None:
    """The stage of an action of Lightning's Trainer, or None where it is part of another.

    An optimiser's step encloses the step's loss and backward pass, which take their own time; the
    rest of `training_step` beside the encoder is the loss.
    """
    owner, _, name = action.rpartition(".")
    if name in ("train_dataloader_next", "batch_to_device"):
        return "data"
    if owner.startswith("[Strategy]"):
        return {"training_step": "loss", "backward": "backward"}.get(name)
    if name == "optimizer_step" and owner.startswith("[LightningModule]"):
        return "optimiser"
    if name == "on_before_optimizer_step" and owner.startswith("[Callback]"):
        return OTHER
    return None


class ProfilingCallback(Callback):
    """Takes the time of evaluations and measures the device's peak; the first callback.

    Args:
        watch: The stopwatch.
        precision: What the run computes in.

    Attributes:
        peak: 10^9 operations a second on the encoder's shapes; None before the training.
        gemms: The same by shape.
    """

    def __init__(self, watch: Stopwatch, precision: Asked) -> None:
        self.watch, self.dtype = watch, DTYPES[precision]
        self.peak: float | None = None
        self.gemms: list[GemmRate] = []

    def setup(self, trainer: lp.Trainer, pl_module: lp.LightningModule, stage: str) -> None:
        """Gives the recommender the stopwatch."""
        if isinstance(pl_module, TrainableRecommender):
            pl_module.watch = self.watch
        self.watch.wait = get_synchronizer(trainer.strategy.root_device)

    def on_fit_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Measures the peak on the shapes that a step multiplies."""
        model = cast(TrainableRecommender, pl_module)
        with trainer.precision_plugin.train_step_context():
            rate = model.work.get_rate(model.encoder, model.encoding.prefix)
        rows, device = model.encoder.chunk_tokens, trainer.strategy.root_device
        peak, self.gemms = measure_gemm_peak(rate.shapes, rows, self.dtype, device)
        self.peak = peak or None

    def on_validation_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Enters the evaluation."""
        self.watch.push(EVALUATION)

    def on_validation_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Leaves it."""
        self.watch.pop()

    def on_test_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Enters the evaluation."""
        self.watch.push(EVALUATION)

    def on_test_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Leaves it."""
        self.watch.pop()


@dataclass(frozen=True)
class GemmRate:
    """The best rate of one matrix product.

    Attributes:
        inputs: Width of a row that goes in.
        outputs: Width of a row that comes out.
        gflops: 10^9 operations a second.
    """

    inputs: int
    outputs: int
    gflops: float


def measure_gemm_peak(
    shapes: Sequence[tuple[int, int]], rows: int, dtype: torch.dtype, device: torch.device
) -> tuple[float, list[GemmRate]]:
    """The rate at which the device multiplies matrices of a model's shapes, and nothing else.

    The best of many repetitions counts, because other programs may share the device. Nothing is
    drawn, so that no number of the run changes.

    Args:
        shapes: Input and output width of each linear map, as often as it runs.
        rows: Token places of a micro-batch.
        dtype: What the run multiplies in.
        device: Where.

    Returns:
        10^9 operations a second over all maps together (0 without any), and by shape.
    """
    wait = get_synchronizer(device)
    found: list[GemmRate] = []
    operations, seconds = 0.0, 0.0
    for (inputs, outputs), times in Counter(shapes).items():
        x = torch.full((rows, inputs), 0.5, dtype=dtype, device=device)
        weight = torch.full((outputs, inputs), 0.5, dtype=dtype, device=device)
        best = _measure_seconds(x, weight, wait)
        once = 2.0 * rows * inputs * outputs
        found.append(GemmRate(inputs, outputs, once / best / 1e9))
        operations += times * once
        seconds += times * best
    return (operations / seconds / 1e9 if seconds else 0.0), found


@torch.no_grad()
def _measure_seconds(x: Tensor, weight: Tensor, wait: Callable[[], None] | None) -> float:
    """Least seconds of x (N, D) times the transposed weight (E, D)."""
    best, until, rounds = math.inf, time.monotonic() + GEMM_SECONDS, 0
    while rounds < GEMM_ROUNDS or time.monotonic() < until:
        rounds += 1
        began = time.perf_counter()
        for _ in range(4):  # a launch takes time as well
            nn.functional.linear(x, weight)
        if wait is not None:
            wait()
        best = min(best, (time.perf_counter() - began) / 4)
    return best


def get_synchronizer(device: torch.device) -> Callable[[], None] | None:
    """Waits for a device that works behind the host's back; None for one that does not."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return torch.mps.synchronize if device.type == "mps" else None


def compute_profile(
    seconds: Mapping[str, float], counts: TrainingCounts, peak: float | None, devices: int
) -> dict[str, float | None]:
    """What a profile says, by the names that it has everywhere; None where nothing was measured.

    Rates are over the time of the training steps and over all devices. The utilisation is that of
    one device: useful operations, so that padding counts as idle, over what the peak allows in the
    time of the passes forward and backward.

    Args:
        seconds: By stage, of the first rank.
        counts: Over all ranks.
        peak: Of a device, in 10^9 operations a second, or None.
        devices: How many there are.
    """
    step = sum(seconds[stage] for stage in STEP)
    passes = sum(seconds[stage] for stage in ("encode", "user", "loss", "backward"))

    def compute_share(part: float, whole: float) -> float | None:
        return part / whole if whole else None

    return {
        **{f"{stage}_seconds": seconds[stage] for stage in STAGES},
        "step_seconds": step,
        "texts_per_second": compute_share(counts.texts, step),
        "tokens_per_second": compute_share(counts.tokens, step),
        "padding_share": compute_share(counts.positions - counts.tokens, counts.positions),
        "unique_share": compute_share(counts.unique, counts.references),
        "gemm_peak_gflops": peak,
        "utilisation": compute_share(counts.flops, devices * passes * 1e9 * (peak or 0.0)),
        "device_peak_mb": (
            torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
        ),
    }


def write(
    folder: Path,
    found: Mapping[str, float | None],
    counts: TrainingCounts,
    gemms: Sequence[GemmRate],
) -> None:
    """Writes `profile.json`, whole or not at all.

    Args:
        folder: Of the run.
        found: What `compute_profile` gave.
        counts: Over all ranks.
        gemms: The peak by shape.

    Raises:
        DataError: The disk is full.
    """
    whole = {
        **found,
        "counts": asdict(counts),
        "gemms": [asdict(gemm) for gemm in gemms],
        "threads": torch.get_num_threads(),
    }
    write_atomic(folder / PROFILE, json.dumps(whole, indent=2) + "\n")


def show(found: Mapping[str, float | None]) -> None:
    """Prints where the time went.

    Args:
        found: What `compute_profile` gave.
    """
    from rich.console import Console
    from rich.table import Table

    stages = {stage: found[f"{stage}_seconds"] or 0.0 for stage in STAGES}
    whole = sum(stages.values()) or 1.0
    out = Table(title="profile")
    for name in ("stage", "seconds", "share"):
        out.add_column(name, justify="left" if name == "stage" else "right")
    for stage, seconds in stages.items():
        out.add_row(stage, f"{seconds:.2f}", f"{100 * seconds / whole:.1f} %")
    out.add_section()
    for name, value in found.items():
        if name.removesuffix("_seconds") in stages or value is None:
            continue
        percent = name.endswith("_share") or name == "utilisation"
        shown = f"{100 * value:.1f} %" if percent else f"{value:,.1f}"
        out.add_row(name.replace("_", " "), shown, "")
    Console().print(out)
