"""What `result.json` says of a run that is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import polars as pl
from torch import Tensor

from recsys.assembly import protocols
from recsys.assembly.assembled import Assembly
from recsys.assembly.stored_runs import name_runs, open_start
from recsys.config.compose import RunConfig
from recsys.errors import DataError
from recsys.evaluation import beyond_accuracy as beyond
from recsys.evaluation import slices
from recsys.metrics.names import REPEATED, list_cutoffs
from recsys.recommender.training_counts import TrainingCounts
from recsys.runs import display, provenance, results
from recsys.runs.rank_cost import RankCost
from recsys.runs.state import RunState
from recsys.runtime import excluded_time
from recsys.runtime.excluded_time import Elapsed


@dataclass(frozen=True)
class TrainingProgress:
    """How far training came; by default that nothing trains.

    Attributes:
        steps: Optimiser steps done.
        planned_steps: Steps that the schedule was laid out for.
        epochs: Passes over the training queries, with fractions.
        seconds: Time trained, validations not counted.
    """

    steps: int = 0
    planned_steps: int = 0
    epochs: float = 0.0
    seconds: float = 0.0


class BestValidation(Protocol):
    """What a result says of validations.

    Attributes:
        monitor: The metric that decides, as "val/ndcg@10".
        metrics: All metrics of the validation that decided.
        step: The optimiser step it was seen at.
        first: All metrics of the first validation.
        last: The monitored metric at the last validation.
    """

    monitor: str
    metrics: dict[str, float]
    step: int
    first: dict[str, float]
    last: float | None


def summarize_validation(best: BestValidation, progress: TrainingProgress) -> dict[str, object]:
    """The validation that decided, the last one, and the steps behind them."""
    name = best.monitor.removeprefix("val/")
    return {
        "monitor": best.monitor,
        "best": best.metrics.get(name),
        "step": best.step,
        "metrics": best.metrics,
        "start": best.first.get(name),
        "last": best.last,
        "steps": progress.steps,
        "planned_steps": progress.planned_steps,
        "epochs": progress.epochs,
    }


def summarize_cost(
    run: RunConfig,
    made: Assembly,
    start: RunState,
    counts: TrainingCounts,
    progress: TrainingProgress,
    others: Sequence[RankCost],
    startup: Elapsed,
) -> dict[str, object]:
    """What the run took, over all stops and ranks.

    Args:
        run: The configuration.
        made: What was made of it.
        start: What the first rank has noted.
        counts: Of training, over all ranks.
        progress: How far training came.
        others: What the other ranks have noted.
        startup: What passed before the last attempt could begin: Python, imports, configuration.
    """
    encoding = made.encoding
    cache = None if encoding is None else encoding.prefix or encoding.vectors
    parameters = made.recommender.count_parameters()
    own = compute_cost(run.trainer.processes, parameters, start, counts, progress, others, startup)
    return {**own, **provenance.summarize_cache(cache)}


def compute_cost(
    devices: int,
    parameters: tuple[int, int],
    start: RunState,
    counts: TrainingCounts,
    progress: TrainingProgress,
    others: Sequence[RankCost],
    startup: Elapsed,
) -> dict[str, object]:
    """What any run took, over all stops and ranks, by the names of `result.json`.

    Args:
        devices: How many it asked for.
        parameters: How many there are, and how many of them train.
        start: What the first rank has noted.
        counts: Of training, over all ranks.
        progress: How far training came.
        others: What the other ranks have noted.
        startup: What passed before the last attempt could begin.
    """
    method = start.spent.subtract(start.excluded)
    ranks = [RankCost.from_measurements(start.spent, start.excluded, start.peak_mb), *others]
    peaks = [rank.peak_mb for rank in ranks]
    kept = excluded_time.compute_build_time()
    every, trained = parameters
    return {
        # Heads that are there and never take a step train as little as the encoder.
        "trained_parameters": trained if progress.steps else 0,
        "parameters": every,
        "texts": round(counts.texts),
        "tokens": round(counts.tokens),
        "train_flops": counts.flops,
        "train_seconds": progress.seconds,
        "seconds": start.seconds,
        "cpu_seconds": sum(rank.cpu_seconds for rank in ranks),
        "startup_seconds": startup.seconds,
        "startup_cpu_seconds": startup.cpu_seconds,
        "method_seconds": method.seconds,
        "method_cpu_seconds": sum(rank.spent.subtract(rank.excluded).cpu_seconds for rank in ranks),
        "kept_seconds": None if kept is None else kept.seconds,
        "kept_cpu_seconds": None if kept is None else kept.cpu_seconds,
        "anonymous_peak_mb_sampled": sum(peaks) if all(peaks) else None,
        "largest_rank_peak_mb_sampled": max(peaks) if all(peaks) else None,
        "ranks": len(ranks),
        "devices": devices,
        "resumes": start.resumes,
    }


def summarize_provenance(run: RunConfig, made: Assembly) -> dict[str, object]:
    """Data, encoder, versions and code."""
    encoder: dict[str, object] = {}
    encoding = made.encoding
    start = open_start(run)
    others = [source for source in (made.retriever, start) if source is not None]
    sources = [source.summarize() for source in (*made.sources, *others)]
    if encoding is not None:
        encoder = {"encoder": provenance.identify_encoder(encoding.files, encoding.following)}
        sources += provenance.summarize_pretraining(encoding.files)
    return {
        "data": {
            "fingerprint": made.fingerprint,
            "split": made.split.name,
            **provenance.compute_data_digests(made.split, made.datamodule.lists),
        },
        **encoder,
        **({"built_on": sources} if sources else {}),
        "versions": provenance.collect_versions(),
        "code": provenance.find_commit(),
    }


def summarize_protocol(run: RunConfig, made: Assembly) -> dict[str, object]:
    """What was ranked."""
    options = run.evaluation
    lists: dict[str, object] = {}
    if options.protocol == "candidates":
        lists["candidates"] = options.candidates
    if made.retriever is not None:
        (name,) = name_runs([made.retriever])
        lists["candidates_from"] = f"{name} ({made.retriever.folder})"
    return {
        "name": options.protocol,
        "mask_history": options.mask_history,
        "catalog": len(made.tables.items),
        **protocols.describe_protocol(run, made.split),
        **lists,
    }


@dataclass(frozen=True)
class FinalTest:
    """What only a run that tests has.

    Attributes:
        cases: A row a test case.
        figures: `test`, `floors`, `slices` and, where it was looked at, `beyond`.
        protocol: What the cases say of their protocol.
        repeated: The cases that are counted apart, or None.
    """

    cases: pl.DataFrame
    figures: Mapping[str, object]
    protocol: Mapping[str, object]
    repeated: pl.DataFrame | None = None

    @property
    def test(self) -> Mapping[str, float]:
        """Test metrics of the run."""
        return cast(Mapping[str, float], self.figures["test"])

    @property
    def beyond(self) -> Mapping[str, object] | None:
        """Measures beyond accuracy, where there are any."""
        found = self.figures.get("beyond")
        return found if isinstance(found, Mapping) else None


def make_final_test(
    run: RunConfig,
    made: Assembly,
    floors: Mapping[str, Mapping[str, float]],
    test: Mapping[str, float],
    rows: list[dict[str, Tensor]],
) -> FinalTest:
    """Cuts the test cases up.

    Args:
        run: The configuration.
        made: What was made of it.
        floors: Test metrics of the baselines.
        test: Test metrics of the run.
        rows: Its cases over all ranks; the best items of each, which they may hold, are taken out.
    """
    options, counts = run.evaluation, made.examples.count_train_items()
    slicing = slices.SliceInputs(made.tables, made.split, counts, tuple(options.slices))
    rows, others = _set_apart(rows)
    kept = beyond.take_top(rows)
    further: dict[str, object] = {}
    if kept is not None:
        further["beyond"] = beyond.compute_measures(
            *kept, list_cutoffs(options), counts, made.tables, made.split, options.category
        )
    cases = slices.annotate_cases(results.make_cases_frame(rows, made.tables), slicing)
    apart = None
    if others:
        beyond.take_top(others)
        apart = slices.annotate_cases(results.make_cases_frame(others, made.tables), slicing)
    names = [name for name in display.list_columns(options) if "/" not in name]
    means = slices.compute_slice_means(cases, names, options.label, options.slices)
    if apart is not None:
        means[REPEATED] = {
            name: slices.compute_part_means(part, names, options.label)
            for name, part in (("new", cases), (REPEATED, apart))
        }
    said: dict[str, object] = {"unreachable": int(cases["unreachable"].sum())}
    if options.protocol == "candidates":
        missed = {} if made.retriever is None else {"missed": int(cases["missed"].sum())}
        inserted = int(cases["inserted"].sum())
        recall = 1 - (inserted + missed.get("missed", 0)) / len(cases)
        said |= {"inserted": inserted, **missed, "list_recall": recall}
    figures = {"test": test, "floors": floors, "slices": means, **further}
    return FinalTest(cases, figures, said, apart)


def _set_apart(
    rows: Sequence[dict[str, Tensor]],
) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Rows of the cases that count, and of those that are counted apart, which may be none.

    Raises:
        DataError: All are apart.
    """
    if not rows or REPEATED not in rows[0]:
        return list(rows), []
    kept: tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]] = ([], [])
    for row in rows:
        again = row[REPEATED]
        for part, mask in zip(kept, (~again, again), strict=True):
            part.append({k: v[mask] for k, v in row.items() if k != REPEATED})
    counts = [sum(len(row["case"]) for row in part) for part in kept]
    if not counts[0]:
        raise DataError(
            f"all {counts[1]} test targets are items that their users had before, and none is left "
            "to count; set evaluation.repeated=alike with evaluation.mask_history=false."
        )
    return kept[0], kept[1] if counts[1] else []
