"""What `result.json` says of a run that is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import polars as pl
from torch import Tensor

from recsys.assembly import protocols
from recsys.assembly.build import Assembly
from recsys.config.compose import Run
from recsys.evaluation import beyond_accuracy as beyond
from recsys.evaluation import slices
from recsys.evaluation.evaluator import cutoffs
from recsys.recommender.parameters import TABLE
from recsys.runs import provenance, results
from recsys.runs.folder import Start
from recsys.runs.rank_cost import RankCost
from recsys.runtime import excluded_time
from recsys.runtime.excluded_time import Spent
from recsys.training.callbacks import Best, Watch, trained_epochs
from recsys.training.cost import Counts


@dataclass(frozen=True)
class Progress:
    """How far training came.

    Attributes:
        steps: Optimiser steps done.
        planned_steps: Steps that the schedule was laid out for.
        epochs: Passes over the training queries, with fractions.
        seconds: Time trained, validations not counted.
    """

    steps: int
    planned_steps: int
    epochs: float
    seconds: float

    @staticmethod
    def of(made: Assembly, seconds: float) -> Progress:
        """How far it came by now; nothing is planned where nothing can train."""
        model = made.recommender
        if not model.trained():
            return Progress(0, 0, 0.0, seconds)
        trainer = model.trainer
        return Progress(
            trainer.global_step, model.planned_steps(), trained_epochs(trainer), seconds
        )


def validation(best: Best, progress: Progress) -> dict[str, object]:
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


def train(watch: Watch, made: Assembly) -> dict[str, object]:
    """Loss and distance from the start by role, for the gap and for regularisation."""
    still = {role: 0.0 for role, named in made.recommender.roles().items() if named}
    return {"loss": watch.loss(), "distance": watch.distance or still}


def cost(
    run: Run,
    made: Assembly,
    start: Start,
    counts: Counts,
    progress: Progress,
    others: Sequence[RankCost],
    startup: Spent,
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
    model, method = made.recommender, start.spent.minus(start.beside)
    ranks = [RankCost.of(start.spent, start.beside, start.peak_mb), *others]
    peaks = [rank.peak_mb for rank in ranks]
    kept = excluded_time.kept()
    return {
        # Heads that are there and never take a step train as little as the encoder.
        "trained_parameters": (
            sum(p.numel() for p in model.kept().values()) if progress.steps else 0
        ),
        "parameters": sum(
            p.numel() for name, p in model.named_parameters() if not name.startswith(TABLE)
        ),
        "texts": round(counts.texts),
        "tokens": round(counts.tokens),
        "train_flops": counts.flops,
        "train_seconds": progress.seconds,
        "seconds": start.seconds,
        "cpu_seconds": sum(rank.cpu_seconds for rank in ranks),
        "startup_seconds": startup.seconds,
        "startup_cpu_seconds": startup.cpu_seconds,
        "method_seconds": method.seconds,
        "method_cpu_seconds": sum(rank.spent.minus(rank.beside).cpu_seconds for rank in ranks),
        "kept_seconds": None if kept is None else kept.seconds,
        "kept_cpu_seconds": None if kept is None else kept.cpu_seconds,
        "anonymous_peak_mb_sampled": sum(peaks) if all(peaks) else None,
        "largest_rank_peak_mb_sampled": max(peaks) if all(peaks) else None,
        "ranks": len(ranks),
        "devices": run.trainer.devices,
        "resumes": start.resumes,
        **provenance.cache(model.parts.prefix or model.parts.vectors),
    }


def circumstances(run: Run, made: Assembly) -> dict[str, object]:
    """Data, encoder, versions and code."""
    encoder: dict[str, object] = {}
    parts = made.recommender.parts
    if parts.encoder is not None:
        about = provenance.encoder(run.encoder.model, run.encoder.revision, parts.following)
        encoder = {"encoder": about}
    return {
        "data": {
            "fingerprint": made.fingerprint,
            "split": made.split.name,
            **provenance.data(made.split, made.datamodule.lists),
        },
        **encoder,
        "versions": provenance.versions(),
        "code": provenance.commit(),
    }


def protocol(run: Run, made: Assembly) -> dict[str, object]:
    """What was ranked."""
    options = run.evaluation
    lists = {"candidates": options.candidates} if options.protocol == "candidates" else {}
    return {
        "name": options.protocol,
        "mask_history": options.mask_history,
        "catalog": len(made.tables.items),
        **protocols.described(run, made.split),
        **lists,
    }


@dataclass(frozen=True)
class Tested:
    """What only a run that tests has.

    Attributes:
        cases: A row a test case.
        figures: `test`, `floors`, `slices` and, where it was looked at, `beyond`.
        protocol: What the cases say of their protocol.
    """

    cases: pl.DataFrame
    figures: Mapping[str, object]
    protocol: Mapping[str, object]

    @property
    def test(self) -> Mapping[str, float]:
        """Test metrics of the run."""
        return cast(Mapping[str, float], self.figures["test"])

    @property
    def beyond(self) -> Mapping[str, object] | None:
        """Measures beyond accuracy, where there are any."""
        found = self.figures.get("beyond")
        return found if isinstance(found, Mapping) else None


def tested(
    run: Run,
    made: Assembly,
    floors: Mapping[str, Mapping[str, float]],
    test: Mapping[str, float],
    rows: list[dict[str, Tensor]],
) -> Tested:
    """Cuts the test cases up.

    Args:
        run: The configuration.
        made: What was made of it.
        floors: Test metrics of the baselines.
        test: Test metrics of the run.
        rows: Its cases over all ranks; the best items of each, which they may hold, are taken out.
    """
    options, counts = run.evaluation, made.examples.train_counts()
    slicing = slices.Slicing(made.tables, made.split, counts, tuple(options.slices))
    kept = beyond.take(rows)
    further: dict[str, object] = {}
    if kept is not None:
        further["beyond"] = beyond.measures(
            *kept, cutoffs(options), counts, made.tables, made.split, options.category
        )
    cases = slices.annotate(results.cases_frame(rows, made.tables), slicing)
    names = [name for name in results.columns(options) if "/" not in name]
    means = slices.means(cases, names, options.label, options.slices)
    said: dict[str, object] = {"unreachable": int(cases["unreachable"].sum())}
    if options.protocol == "candidates":
        inserted = int(cases["inserted"].sum())
        said |= {"inserted": inserted, "list_recall": 1 - inserted / len(cases)}
    return Tested(cases, {"test": test, "floors": floors, "slices": means, **further}, said)
