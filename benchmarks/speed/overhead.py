"""What the framework costs: Trainer, log, saved states, profile, and the way to the first step."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, ParamSpec, TypeVar

from measure import Part, Timing, once, row

HERE = Path(__file__).resolve().parent
FULL, LORA, FROZEN = "full", "LoRA, last 2 layers", "frozen"
EXPERIMENTS = {FULL: "full_two_tower", LORA: "lora_two_tower", FROZEN: "frozen_two_tower"}
SIZES = {LORA: (32, 4), FROZEN: (32, 28)}
"""Batch size and steps of a timed training; all steps lie in the first epoch."""

NEVER = 1_000_000
TARGET = 0.03  # of a step
STAGE = "stages "
"""How the line begins with which `startup` tells its parent where the seconds went."""

P = ParamSpec("P")
R = TypeVar("R")


def overhead(data: Path, runs: int) -> Part:
    """Every measurement.

    Args:
        data: Folder that holds `ml-100k`.
        runs: Timed runs; a start is timed at most three times, each in a process of its own.
    """
    rows = [r for tuning in (LORA, FROZEN) for r in trainer(data, tuning, runs)]
    rows += [r for tuning in (FROZEN, LORA, FULL) for r in saving(data, tuning, runs)]
    for name, tuning in (("tiny data, frozen", FROZEN), ("tiny data, LoRA, last 2 layers", LORA)):
        rows += start(data, name, EXPERIMENTS[tuning], min(runs, 3))
    notes = [
        "Steps: ml-100k, 32 users, every position trains, dropout off. The bare loop calls the "
        "same `training_step` on the same batches of the same loader, clips and steps; the Trainer "
        "has every callback of a run. The first step is not timed; what is added is the median of "
        "the differences between neighbours in time. The share of a step that the "
        f"Trainer adds should stay under {TARGET:.0%}: what it adds is a fixed time a step, so "
        "that the share is small wherever an encoder trains and large where a step takes a few "
        "milliseconds, as with a frozen encoder.",
        "Saved states: `Save.write` on the thread that trains, and the file of the best "
        "parameters. A state holds what trains and AdamW's two moments of it.",
        "Start: a process of its own, from its first line to the end of the first step, on 50 "
        "users and 200 films of ml-100k. The first time nothing is kept on disk; then tokens and "
        "states of the frozen layers are (of a frozen encoder the vectors themselves).",
    ]
    return Part("Overheads", rows, notes)


def words(data: Path, tuning: str) -> list[str]:
    """The command of a small run."""
    return [
        f"experiment={EXPERIMENTS[tuning]}",
        "data.source=movielens",
        f"data.source.path={data / 'ml-100k'}",
        "data.queries=all",
        "regularization.dropout=0",
        "trainer.accelerator=cpu",
        "tracking.wandb=off",
    ]


class Loop:
    """One recommender, trained the same few steps over and over from the same start.

    Args:
        data: Folder of the sets.
        tuning: How the encoder is adapted.
        size: Users of a batch.
        steps: Of a training.
    """

    def __init__(self, data: Path, tuning: str, size: int, steps: int) -> None:
        from lightning.fabric import Fabric

        from recsys.assembly import build
        from recsys.config.compose import compose
        from recsys.fit.command import resolve, silence_libraries
        from recsys.recommender.trainable import require_trainable

        silence_libraries()
        more = [f"trainer.batch_size={size}", f"trainer.max_steps={steps}"]
        self.run = resolve(compose([*words(data, tuning), *more]))
        self.made = build.assemble(self.run)
        self.model = require_trainable(self.made.recommender)
        self.steps = steps
        self.fabric = Fabric(accelerator="cpu", devices=1)
        self.start = {k: p.detach().clone() for k, p in self.model.get_trained_parameters().items()}
        self.loss = 0.0

    def reset(self) -> None:
        """Back to the first parameters."""
        import torch

        with torch.no_grad():
            for name, p in self.model.get_trained_parameters().items():
                p.copy_(self.start[name])
                p.grad = None

    def bare(self) -> tuple[float, float]:
        """Wall and CPU seconds of a step in a plain loop."""
        import torch

        self.reset()
        model, parts = self.model, self.model.parts
        model.fabric = self.fabric  # stands for the Trainer: one device, a log that goes nowhere
        self.fabric.accumulate_grad_batches = 1  # type: ignore[attr-defined]
        model.train()
        trained = model.get_trained_parameters()
        plain = frozenset(k for k, p in trained.items() if p.ndim < 2 or "norm" in k.lower())
        total = self.made.datamodule.count_steps(self.run.trainer.epochs, 1, self.steps)
        optimizer, schedule = parts.optimise(model.get_stepped_roles(), plain, total)
        self.made.datamodule.trainer = None
        clock = Clock()
        for place, batch in enumerate(self.made.datamodule.train_dataloader()):
            loss = model.training_step(batch, place)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(trained.values(), self.run.optimizer.clip)
            optimizer.step()
            schedule.step()
            clock.mark()
            if place + 1 == self.steps:
                break
        self.loss = float(loss.detach())
        model.fabric = None
        return clock.step()

    def trainer(self, log_every: int, profile: bool = False) -> tuple[float, float]:
        """Wall and CPU seconds of a step under the run's own Trainer."""
        from recsys.fit.training import TrainingExecutor
        from recsys.runtime.signals import SignalHandler

        self.reset()
        self.run.trainer.log_every, self.run.profile = log_every, profile
        with tempfile.TemporaryDirectory() as folder, SignalHandler() as signals:
            job = TrainingExecutor(self.run, Path(folder), self.made, signals)
            trainer = job._make_trainer()
            clock = Clock()
            trainer.callbacks.append(clock.callback())  # type: ignore[attr-defined]
            trainer.fit(self.model, self.made.datamodule)
        self.loss = float(self.model.train_loss.detach())
        return clock.step()


class Clock:
    """Takes the time after each step."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def mark(self) -> None:
        """A step has ended."""
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def step(self) -> tuple[float, float]:
        """Mean wall and CPU seconds of a step, the first one left out."""
        steps = len(self.wall) - 1
        return (self.wall[-1] - self.wall[0]) / steps, (self.cpu[-1] - self.cpu[0]) / steps

    def callback(self) -> Any:  # noqa: ANN401 - the class is made where Lightning is loaded
        """Marks the end of each step of a Trainer, after all other callbacks."""
        import lightning.pytorch as lp

        clock = self

        class Marks(lp.Callback):
            def on_train_batch_end(
                self,
                trainer: lp.Trainer,
                pl_module: lp.LightningModule,
                outputs: object,
                batch: object,
                batch_idx: int,
            ) -> None:
                clock.mark()

        return Marks()


def trainer(data: Path, tuning: str, runs: int) -> list[dict[str, Any]]:
    """A step in a bare loop and under the Trainer with different logs, in turn."""
    size, steps = SIZES[tuning]
    loop = Loop(data, tuning, size, steps)
    sides: dict[str, Callable[[], tuple[float, float]]] = {
        "bare loop": loop.bare,
        "Trainer, a log row every 10 steps (default)": lambda: loop.trainer(10),
    }
    if tuning == FROZEN:  # a fixed time a step: seen where a step is short, and quickly measured
        sides |= {
            "Trainer, a log row every step": lambda: loop.trainer(1),
            "Trainer, no log row": lambda: loop.trainer(NEVER),
            "Trainer, profile=true": lambda: loop.trainer(10, profile=True),
        }
        runs *= 3
    loop.bare()
    timings = {name: Timing() for name in sides}
    losses: dict[str, float] = {}
    for _ in range(runs):
        for name, side in sides.items():
            wall, cpu = side()
            timings[name].wall.append(wall)
            timings[name].cpu.append(cpu)
            losses[name] = loop.loss
    base = next(iter(sides))
    out = []
    for name, timing in timings.items():
        first = timings[base]
        added = _added(timing.wall, first.wall)
        cpu = _added(timing.cpu, first.cpu)
        extra = {
            "ms added": 1000 * added,
            "% of a step": 100 * added / first.median,
            "CPU ms added": 1000 * cpu,
            "% of its CPU s": 100 * cpu / median(first.cpu),
        }
        off = {"loss of the last step": abs(losses[name] - losses[base])}
        what = f"{tuning}: a step of {size} users"
        out.append(
            row(
                what,
                name,
                timing,
                texts=0,
                tokens=0,
                exact=off,
                extra={} if name == base else extra,
            )
        )
    return out


def _added(side: list[float], base: list[float]) -> float:
    """Median of the differences within a round: what changes between rounds does not enter."""
    return median(a - b for a, b in zip(side, base, strict=True))


def saving(data: Path, tuning: str, runs: int) -> list[dict[str, Any]]:
    """Seconds and size of a saved state and of the file of the best parameters."""
    from recsys.fit.training import TrainingExecutor
    from recsys.runtime.signals import SignalHandler

    loop = Loop(data, tuning, 4, 1)
    with tempfile.TemporaryDirectory() as name, SignalHandler() as signals:
        folder = Path(name)
        job = TrainingExecutor(loop.run, folder, loop.made, signals)
        made = job._make_trainer()
        made.fit(loop.model, loop.made.datamodule)
        best = folder / "best.safetensors"
        calls: dict[str, tuple[Callable[[], object], Path]] = {
            "a state to go on from": (lambda: job.save.write(made), job.save.path),
            "the best parameters": (lambda: loop.model.save_trained(best), best),
        }
        out = []
        for label, (call, path) in calls.items():
            call()
            pairs = [once(call) for _ in range(runs)]
            timing = Timing([w for w, _ in pairs], [c for _, c in pairs])
            extra = {"MB": path.stat().st_size / 1e6}
            what = f"{tuning}: saving"
            out.append(row(what, label, timing, texts=0, tokens=0, extra=extra))
    return out


def start(data: Path, name: str, experiment: str, runs: int) -> list[dict[str, Any]]:
    """Where the seconds go from the first line of a process to the end of its first step."""
    common = [
        f"experiment={experiment}",
        "data.source=movielens",
        f"data.source.path={data / 'ml-100k'}",
        "data.max_users=50",
        "data.max_items=200",
        "trainer.accelerator=cpu",
        "tracking.wandb=off",
    ]
    out = []
    with tempfile.TemporaryDirectory() as cache:
        for label, count in (("nothing kept", 1), ("kept tokens and states", runs)):
            found = [_start(common, cache) for _ in range(count)]
            wall = [sum(stages.values()) for stages, _ in found]
            middle = sorted(range(count), key=wall.__getitem__)[count // 2]
            extra = {f"{stage} s": seconds for stage, seconds in found[middle][0].items()}
            timing = Timing(wall, [cpu for _, cpu in found])
            what = f"Start to first step: {name}"
            out.append(row(what, label, timing, texts=0, tokens=0, extra=extra))
    return out


def _start(common: list[str], cache: str) -> tuple[Mapping[str, float], float]:
    """Stages and CPU seconds of one start, with its own folder of what is kept."""
    import os

    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, str(Path(__file__).resolve()), *common, f"output={output}"]
        env = {**os.environ, "RECSYS_CACHE": cache}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    lines = [x for x in done.stdout.splitlines() if x.startswith(STAGE)]
    if not lines:
        raise RuntimeError(f"no first step was reached: {done.stderr[-2000:]}")
    content = json.loads(lines[-1][len(STAGE) :])
    return content["stages"], content["cpu"]


class FirstStep(Exception):
    """Ends the command after its first step."""


def startup(argv: list[str]) -> None:
    """Runs the command until its first step and prints where the seconds went.

    Stages are those of the functions that a run calls; a stage within another counts once, for
    itself. What none of them takes is `other`.
    """
    began = time.perf_counter()
    spent: dict[str, float] = {}
    inner = [0.0]

    def timed(call: Callable[P, R], stage: str) -> Callable[P, R]:
        def within(*args: P.args, **kwargs: P.kwargs) -> R:
            at = time.perf_counter()
            inner.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                took = time.perf_counter() - at
                spent[stage] = spent.get(stage, 0.0) + took - inner.pop()
                inner[-1] += took

        return within

    def imports() -> None:
        import recsys.fit.__main__
        import recsys.fit.run  # noqa: F401 - everything that a run loads

    timed(imports, "imports")()
    _listen(timed)
    from recsys.fit import __main__ as fit

    try:
        fit.main(argv)
    except FirstStep:
        spent["other"] = time.perf_counter() - began - sum(spent.values())
        print(STAGE + json.dumps({"stages": spent, "cpu": time.process_time()}), flush=True)


def _listen(timed: Callable[[Callable[..., object], str], Callable[..., object]]) -> None:
    """Puts a stage around the functions that a run calls, and ends it after its first step."""
    import lightning.pytorch as lp

    from recsys.assembly import build, encoding
    from recsys.data.batches.catalog import Catalog
    from recsys.encoders.cache.frozen_layers import FrozenLayerCache
    from recsys.encoders.cache.vectors import FrozenVectorCache
    from recsys.fit.training import TrainingExecutor
    from recsys.training.resume import ResumeCheckpoint

    def stop(*_: object) -> None:
        raise FirstStep

    for owner, name, stage in (
        (build, "data", "data"),
        (encoding, "load_all", "encoder"),
        (Catalog, "build", "tokens"),
        (FrozenLayerCache, "build", "kept states"),
        (FrozenVectorCache, "build", "kept states"),
        (TrainingExecutor, "_evaluate_baselines", "baselines"),
        (lp.Trainer, "test", "evaluation at the start"),
        (lp.Trainer, "validate", "evaluation at the start"),
        (lp.Trainer, "fit", "first step"),
    ):
        call = timed(getattr(owner, name), stage)
        # A method of a class or none was bound when it was looked up.
        bound = owner in (Catalog, FrozenLayerCache, FrozenVectorCache)
        setattr(owner, name, staticmethod(call) if bound else call)
    ResumeCheckpoint.on_train_batch_end = stop  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    startup(sys.argv[1:])
