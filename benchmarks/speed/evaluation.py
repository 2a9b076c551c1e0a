"""Full-catalog metrics from the same scores: recsys, torchmetrics and RecBole's evaluator.

RecBole lives in a virtual environment of its own (see recbole_peer.py); RECBOLE_PYTHON names its
python. Without it, RecBole's rows are missing and the page says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from measure import SHORTEST, Part, Timing, once, row
from recbole_peer import SASREC, Cases, given_scores
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.retrieval import (
    RetrievalHitRate,
    RetrievalMAP,
    RetrievalMRR,
    RetrievalNormalizedDCG,
)

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.evaluation.evaluator import Evaluator
from recsys.metrics.functional import compute_from_counts
from recsys.types import Batch

SETS = {"ml-100k": "movielens", "amazon-instruments": "sequences"}
USED = 20_618  # items of amazon-instruments that somebody had; others have a title only
FEW = 100  # users of the larger set that torchmetrics is given
RECBOLE_BATCH = 4096  # RecBole's default
OURS = "recsys, 256 users a batch"


class Given:
    """Stands for an architecture whose scores are there already.

    Args:
        scores: (Q, I) scores of all cases.
    """

    needs_history = False

    def __init__(self, scores: Tensor) -> None:
        self.scores, self.first = scores, 0

    def get_popularity(self) -> Tensor:
        """Not asked for: `needs_history` is off."""
        raise NotImplementedError

    def score_candidates(self, batch: Batch, items: Tensor) -> Tensor:
        """Not asked for: the whole catalog is ranked."""
        raise NotImplementedError

    def index_catalog(self) -> Tensor:
        """(I, 1) nothing, as scores need no items."""
        return torch.zeros(self.scores.shape[1], 1)

    def select_directions(self, items: Tensor) -> Tensor:
        """All of them."""
        return items

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q,) rows of the scores."""
        start, self.first = self.first, self.first + len(batch.query)
        return torch.arange(start, self.first)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, I) the scores, no copy."""
        return self.scores[int(queries[0]) : int(queries[-1]) + 1]


class Ours:
    """`recsys.evaluation.evaluator` over the batches of the data module."""

    def __init__(self, batches: list[Batch], scores: Tensor) -> None:
        self.batches, self.scores = batches, scores
        self.evaluator = Evaluator("catalog", (10,), True, torch.ones(scores.shape[1]).long())

    def __call__(self) -> dict[str, float]:
        """Every metric of the catalog protocol; a row a case is kept as well."""
        ranker = Given(self.scores)
        self.evaluator.start(ranker)
        for batch in self.batches:
            self.evaluator.step(ranker, batch)
        return self.evaluator.end()


class TorchMetrics:
    """Retrieval metrics as its documentation shows them; a collection shares the stored scores."""

    def __init__(self, cases: Cases, scores: Tensor) -> None:
        self.cases, self.scores = cases, scores.clone()

    def __call__(self) -> dict[str, float]:
        """Metrics of all cases at once."""
        metrics = MetricCollection(
            {
                "ndcg@10": RetrievalNormalizedDCG(top_k=10),
                "hr@10": RetrievalHitRate(top_k=10),
                "mrr": RetrievalMRR(),
                "map@10": RetrievalMAP(top_k=10),
            }
        )
        rows, items = self.scores.shape
        self.scores[self.cases.seen.unbind(1)] = -torch.inf
        relevant = torch.zeros(rows, items, dtype=torch.bool)
        relevant[torch.arange(rows), self.cases.target] = True
        indexes = torch.arange(rows).repeat_interleave(items)
        metrics.update(self.scores.flatten(), relevant.flatten(), indexes=indexes)
        return {name: float(value) for name, value in metrics.compute().items()}


class Peer:
    """RecBole in its own process, asked for a run at a time.

    Args:
        python: Of its virtual environment.
        cases: What is ranked.
    """

    # RecBole's MRR ends at the tenth place, which with one target is the average precision there.
    NAMES = {"hit@10": "hr@10", "ndcg@10": "ndcg@10", "mrr@10": "map@10"}  # noqa: RUF012

    def __init__(self, python: str, cases: Cases) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "cases.npz"
        np.savez(path, target=cases.target, seen=cases.seen, items=cases.items)
        script = Path(__file__).with_name("recbole_peer.py")
        self.process = subprocess.Popen(
            [python, str(script), "metrics", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder.name,
        )

    def __enter__(self) -> Self:
        self._read("ready")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.process.communicate()
        self.folder.cleanup()

    def ask(self, block: int, times: int) -> dict[str, Any]:
        """Seconds and metrics of a run, the mean over `times` calls."""
        if self.process.stdin is None:
            raise RuntimeError("RecBole's process has no input")
        self.process.stdin.write(f"{block} {times}\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self._read("{"))
        found["metrics"] = {to: found["metrics"][name] for name, to in self.NAMES.items()}
        return found

    def _read(self, start: str) -> str:
        """The next line that begins so; RecBole prints lines of its own between."""
        if self.process.stdout is None:
            raise RuntimeError("RecBole's process has no output")
        for line in self.process.stdout:
            if line.startswith(start):
                return line
        raise RuntimeError("RecBole's process ended; run its command by hand to see why")


Side = Callable[[int], tuple[float, float, dict[str, float]]]
"""Wall and CPU seconds of a call (the mean over so many), and the metrics."""


def local(call: Callable[[], dict[str, float]]) -> Side:
    """A side in this process."""

    def run(times: int) -> tuple[float, float, dict[str, float]]:
        found: dict[str, float] = {}
        wall, cpu = once(lambda: found.update(call()), times)
        return wall, cpu, found

    return run


def remote(peer: Peer, block: int) -> Side:
    """A side in RecBole's process."""

    def run(times: int) -> tuple[float, float, dict[str, float]]:
        found = peer.ask(block, times)
        return found["wall"], found["cpu"], found["metrics"]

    return run


def load(data: Path, name: str, few: int | None = None) -> tuple[list[Batch], Cases]:
    """The test cases of a set as the data module gives them, and as plain numbers.

    Args:
        data: Folder of the sets.
        name: The set.
        few: Only so many cases; None for all.
    """
    words = ["experiment=popularity", f"data.source={SETS[name]}"]
    words += ["data.split=leave_one_out", f"data.source.path={data / name}"]
    words += [f"data.max_items={USED}"] if name == "amazon-instruments" else []
    words += [] if few is None else [f"evaluation.max_cases={few}"]
    made = build.assemble(compose(words))
    batches = list(made.datamodule.test_dataloader())
    target = torch.cat([b.plan.items[b.candidates[:, 0]] for b in batches])
    starts = np.cumsum([0, *(len(b.query) for b in batches)])
    seen = [b.seen + torch.tensor([int(s), 0]) for b, s in zip(batches, starts, strict=False)]
    return batches, Cases(target, torch.cat(seen), len(made.tables.items))


def compare(what: str, cases: Cases, sides: dict[str, Side], runs: int) -> list[dict[str, Any]]:
    """Runs the sides in turn; the first is the reference of speed and values."""
    times: dict[str, int] = {}
    values: dict[str, dict[str, float]] = {}
    for name, side in sides.items():
        wall, _, values[name] = side(1)
        if wall < SHORTEST:  # a side this quick is warm by now, and repeated within a run
            times[name] = max(1, round(SHORTEST / max(side(1)[0], 1e-6)))
    timings = {name: Timing() for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            wall, cpu, _ = side(times.get(name, 1))
            timings[name].wall.append(wall)
            timings[name].cpu.append(cpu)
    reference = values[next(iter(sides))]
    rows = []
    for name, timing in timings.items():
        extra = {k: 100 * v for k, v in values[name].items() if k in SHOWN}
        extra["users/s"] = len(cases.target) / timing.median
        shared = [k for k in SHOWN if k in values[name]]
        off = {"largest difference": max(abs(values[name][k] - reference[k]) for k in shared)}
        rows.append(row(what, name, timing, texts=0, tokens=0, exact=off, extra=extra))
    return rows


SHOWN = ("hr@10", "ndcg@10", "map@10", "mrr")


def evaluation(data: Path, runs: int) -> Part:
    """Every side on the same scores.

    Args:
        data: Folder that holds `ml-100k` and `amazon-instruments`.
        runs: Timed runs of every side.
    """
    python = os.environ.get("RECBOLE_PYTHON")
    rows: list[dict[str, Any]] = []
    notes = list(ABOUT)
    if python is None:
        print("RECBOLE_PYTHON is not set: RecBole's evaluator is not measured", file=sys.stderr)
        notes.append("**RecBole's evaluator is missing here**: RECBOLE_PYTHON was not set.")
    for name, few in (("ml-100k", None), ("amazon-instruments", FEW), ("amazon-instruments", None)):
        batches, cases = load(data, name, few)
        scores = given_scores(cases)
        with ExitStack() as held:
            sides: dict[str, Side] = {OURS: local(Ours(batches, scores))}
            if python is not None and few is None:
                peer = held.enter_context(Peer(python, cases))
                sides["RecBole, 256 users a batch"] = remote(peer, 256)
                sides["RecBole, 4,096 users a batch"] = remote(peer, RECBOLE_BATCH)
            if name == "ml-100k" or few is not None:
                sides["torchmetrics"] = local(TorchMetrics(cases, scores))
            part = "" if few is None else f"{few} of 10,000 "
            what = f"{name}: {part or f'{len(cases.target):,} '}users x {cases.items:,} items"
            rows += compare(what, cases, sides, runs)
    notes.append(_extrapolated(rows))
    if SASREC.is_file():
        trained, note = sasrec(json.loads(SASREC.read_text()))
        rows += trained
        notes.append(note)
    return Part("Evaluation", rows, notes)


ABOUT = [
    "From a matrix of scores to metrics: masking of the history, ranking, hit rate, nDCG, MRR and "
    "average precision. The scores are made up (normal, the target's raised by 2.5) and the same "
    "for all; users, targets and histories are real, one target a user, leave-one-out. recsys "
    "runs its own evaluator, which also gives exact expectations over ties, cold and warm slices "
    "and a row a case.",
    "Where definitions agree: hit rate, nDCG and average precision at 10 are the same in all "
    "three. torchmetrics' MRR is that of recsys, over the whole catalog; RecBole's MRR@10 ends at "
    "the tenth place, which with one target is recsys' map@10 (shown under that name). On ties at "
    "the tenth place they differ: recsys and torchmetrics' nDCG take the mean over all orders, "
    "torchmetrics' other metrics and RecBole whichever order their sort gives.",
]


def _extrapolated(rows: list[dict[str, Any]]) -> str:
    """What torchmetrics would take for all users of the larger set, marked as no measurement."""
    slow = [r for r in rows if r["variant"] == "torchmetrics" and "amazon" in r["what"]]
    fast = [r for r in rows if r["variant"] == OURS and "10,000 users" in r["what"]]
    ours = next(r for r in fast if f"{FEW} of" not in r["what"])["median_s"]
    full = slow[0]["median_s"] * 10_000 / FEW
    return (
        f"torchmetrics was given {FEW} users of amazon-instruments only. Extrapolated, not "
        f"measured: at the same seconds a user, all 10,000 would take {full:,.0f} s, "
        f"{full / ours:,.0f} times as long as recsys."
    )


def sasrec(kept: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """RecBole's SASRec from its file: seconds of an epoch, and our metrics of its ranks."""
    greater, equal = (torch.tensor(kept["cases"][name]) for name in ("greater", "equal"))
    ours = {k: float(v.mean()) for k, v in compute_from_counts(greater, equal, (10,)).items()}
    theirs = {to: kept["metrics"][name] for name, to in Peer.NAMES.items()}
    timing = Timing(kept["epoch_seconds"], kept["epoch_cpu_seconds"])
    made = row(
        "RecBole's SASRec on ml-100k: an epoch",
        f"{kept['sequences']:,} sequences of up to 50",
        timing,
        texts=0,
        tokens=0,
        exact={"recsys' metrics of its ranks": max(abs(ours[k] - theirs[k]) for k in theirs)},
        extra={**{k: 100 * v for k, v in theirs.items()}, "mrr": 100 * ours["mrr"]},
    )
    note = (
        f"RecBole's SASRec was trained once, epochs: {len(timing.wall)}, threads: "
        f"{kept['threads']} (`{kept['command']}`), far from converged: its row says what an epoch "
        "costs (the CPU seconds, where the machine had other work), "
        "not how good it can be. Every position of a history becomes a sequence of its own there, "
        "and no history is masked. Its split and the place of every target are in "
        "`results/sasrec-ml-100k.json`, so that the comparison can be repeated without RecBole."
    )
    return [made], note
