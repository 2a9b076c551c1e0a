"""Verdicts of recorded comparisons under the statistics of today, from what the records hold.

Usage: python benchmarks/quality/redraw.py

The runs' cases name users and are kept nowhere, but `study/TABLE.json` has the mean and the spread
over seeds of each method, and the effect size of a contrast tells the spread over users. That is
all that the test asks for, but for the part of the spread over seeds that users x runs explain: it
is counted as spread of the seeds, so that a p drawn here is at most too large. Users enter as
normal. Differences and sentences are written anew in place, in the study and in the sweeps; what
slices say cannot be told from a record, and a line says so. Cost clauses are left as they are.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys.compare.measures.cost import CostBasis
from recsys.compare.outcome import BaselineDifference, Comparison, ComparisonSettings, MethodRow
from recsys.compare.paired import DRAWS, count_draws
from recsys.compare.report import sentences, table, tables
from recsys.compare.statistics import power
from recsys.compare.statistics.contrasts import (
    Contrast,
    adjust_holm,
    compute_equivalence_p,
    compute_interval,
)
from recsys.compare.statistics.resampling import flip_signs
from recsys.compare.statistics.variance import SeedVariance, VarianceComponents

HERE = Path(__file__).resolve().parent
SWEEPS = HERE.parent / "sweeps"
TOLD = (
    "Drawn anew by `benchmarks/quality/redraw.py` from the recorded spreads of seeds and users: p "
    "and intervals are on the safe side, since the part of the spread over seeds that users x runs "
    "explain is not in the record."
)
SLICES = (
    "Intervals of the slices were drawn before, with degrees of freedom from the estimates: where "
    "seeds spread, today's would be wider. The record does not hold what they need."
)
COST = CostBasis("cpu_seconds", "CPU seconds")
DIFFERENCE = re.compile(r"^\| (?P<label>[^|]+?) \| (?P<difference>[-+.\d]+) \|")


@dataclass(frozen=True)
class Record:
    """What is known of a comparison.

    Attributes:
        question: What was asked.
        means: By method, over seeds.
        deviations: By method, over seeds; 0 where nothing trains.
        seeds: By method.
        effects: Of each contrast, by method.
        users: Users, with a case each.
    """

    question: ComparisonSettings
    means: Mapping[str, float]
    deviations: Mapping[str, float]
    seeds: Mapping[str, int]
    effects: Mapping[str, float]
    users: int


def known(record: Record, label: str) -> VarianceComponents:
    """The sources of a contrast's variance, in the form that the statistics take."""
    base = record.question.baseline
    difference = record.means[label] - record.means[base]
    effect = record.effects[label]
    deviation = abs(difference / effect) if effect else 0.0  # over users
    # Half of the users lie so much above the mean, half so much below; one of an odd number on it.
    sides = np.where(np.arange(record.users) % 2, 1.0, -1.0)
    sides[0] += float(record.users % 2)
    sides /= sides.std(ddof=1)
    spreads = tuple(
        SeedVariance(record.deviations[name] ** 2 / record.seeds[name], 0.0, record.seeds[name] - 1)
        for name in (label, base)
        if record.seeds[name] > 1
    )
    return VarianceComponents(
        difference, difference + deviation * sides, np.ones(record.users), spreads
    )


def drawn(record: Record) -> list[BaselineDifference]:
    """Every contrast to the baseline, corrected within the family."""
    question, labels = record.question, list(record.effects)
    margin = None if question.margin is None else question.margin / 100
    out: list[Contrast] = []
    for label in labels:
        source = known(record, label)
        draws = count_draws(DRAWS, question.alpha, len(labels))
        flipping, repeating = np.random.default_rng(0).spawn(2)
        reference = flip_signs(source, draws, flipping)
        low, high = compute_interval(reference, question.alpha)
        out.append(
            Contrast(
                difference=source.mean,
                low=low,
                high=high,
                level=question.level,
                p=reference.compute_p(),
                effect=record.effects[label],
                smallest=power.compute_detectable_difference(
                    source, question.alpha / len(labels), 0.0, repeating
                ),
                equivalent=None if margin is None else compute_equivalence_p(reference, margin),
                seeds=(record.seeds[label], record.seeds[question.baseline]),
                cases=record.users,
                clusters=record.users,
                about="methods",
            )
        )
    corrected = adjust_holm([each.p for each in out])
    close: Sequence[float | None] = [None] * len(out)
    if margin is not None:
        close = adjust_holm(
            [math.nan if each.equivalent is None else each.equivalent for each in out]
        )
    return [
        BaselineDifference(label, found, p, e)
        for label, found, p, e in zip(labels, out, corrected, close, strict=True)
    ]


def rewritten(
    page: str, record: Record, differences: list[BaselineDifference]
) -> tuple[str, list[str]]:
    """A page with its sentences and its table of differences anew, and the sentences."""
    rows = [
        MethodRow(label, list(range(count)), [], count > 1, {}, None, {COST.key: None})
        for label, count in record.seeds.items()
    ]
    none = Comparison(
        record.question, {}, [], rows, differences, [], [], "", [],
        COST, [], ["what is recorded"],
    )  # fmt: skip
    head, _, rest = page.partition("\n\n- ")
    old, _, rest = ("- " + rest).partition("\n\n")
    told = [line.removeprefix("- ") for line in old.split("\n")]
    fresh = sentences.describe_comparison(none)
    summed = len(fresh) - len(differences)
    for at, difference in enumerate(differences, summed):
        label = difference.label
        for line in told:
            if line.startswith((f"{label} is ", f"{label} and ")) and f". {label} took" in line:
                fresh[at] += f" {label} took" + line.partition(f". {label} took")[2]
    fresh += [line for line in told if line.startswith("No other method has both")]
    lines = "\n".join(f"- {sentence}" for sentence in fresh)
    before, _, after = rest.partition("\n## Differences\n")
    _, found, after = after.partition("\n## Slices\n")
    if found:
        after = f"\n{SLICES}\n" + after.removeprefix(f"\n{SLICES}\n")
    shown = "\n".join(table.render_markdown(tables.make_differences_table(none)))
    shown = shown.strip()
    page = f"{head}\n\n{lines}\n\n{before}\n## Differences\n\n{shown}\n\n{TOLD}\n{found}{after}"
    return page, fresh


def study(path: Path) -> None:
    """A table of the study."""
    content: dict[str, Any] = json.loads(path.read_text())
    asked = content["question"]
    question = ComparisonSettings(**{**asked, "slices": tuple(asked["slices"])})
    rows = [row for row in content["rows"] if not row["floor"]]
    figures = {row["label"]: row["metrics"][question.metric] for row in rows}
    record = Record(
        question,
        {label: figure["mean"] for label, figure in figures.items()},
        {label: figure["deviation"] or 0.0 for label, figure in figures.items()},
        {row["label"]: len(row["seeds"]) for row in rows},
        {each["label"]: each["found"]["effect"] for each in content["differences"]},
        content["held"]["users"],
    )
    if content["held"]["cases"] != record.users:
        raise SystemExit(f"{path}: users have several cases; effects do not tell their spread.")
    differences = drawn(record)
    page = path.with_suffix(".md")
    text, told = rewritten(page.read_text(), record, differences)
    report(path.stem, content["differences"], differences, question.alpha)
    page.write_text(text)
    content["differences"] = [asdict(each) for each in differences]
    content["sentences"] = told
    path.write_text(json.dumps(content, indent=1) + "\n")


def sweep(folder: Path) -> None:
    """The closing comparison of a sweep: figures of each seed, effects from the page."""
    content: dict[str, Any] = json.loads((folder / "sweep.json").read_text())
    page = folder / "comparison.md"
    text = page.read_text()
    part = text.partition("\n## Differences\n")[2].partition("\n## Slices\n")[0]
    title = re.search(r"\*\*(\S+) minus that of (.+), in percent points; family '(.+)'\*\*", part)
    if title is None:
        raise SystemExit(f"{page}: there is no table of differences.")
    metric, base, family = title.groups()
    each = {name: [run[metric] for run in runs] for name, runs in content["tests"].items()}
    cells = [line.split(" | ") for line in part.split("\n") if DIFFERENCE.match(line)]
    users = int(re.search(r"cases of ([\d,]+) users", text)[1].replace(",", ""))  # type: ignore[index]
    record = Record(
        ComparisonSettings(metric, base, None, family, 0.95, None),
        {name: float(np.mean(values)) for name, values in each.items()},
        {name: float(np.std(values, ddof=1)) for name, values in each.items()},
        {name: len(values) for name, values in each.items()},
        {row[0].removeprefix("| "): float(row[5]) for row in cells},
        users,
    )
    differences = drawn(record)
    page.write_text(rewritten(text, record, differences)[0])
    print(folder.name, *(f"{d.label}: {d.p_holm:.3f}" for d in differences), sep="\n  ")


def report(
    name: str, old: Sequence[Mapping[str, Any]], new: Sequence[BaselineDifference], alpha: float
) -> None:
    """Prints the verdicts that change."""
    print(name)
    for was, now in zip(old, new, strict=True):
        found = now.found
        before = BaselineDifference(was["label"], replace(found, **_ends(was)), was["p_holm"], None)
        if sentences.is_significant(before, alpha) != sentences.is_significant(now, alpha):
            print(f"  {now.label}: p (Holm) {was['p_holm']:.3f} -> {now.p_holm:.3f}")


def _ends(was: Mapping[str, Any]) -> dict[str, float]:
    return {name: was["found"][name] for name in ("low", "high")}


def main() -> int:
    """Draws every record anew."""
    for path in sorted((HERE / "study").glob("*.json")):
        if path.stem != "rates":
            study(path)
    for folder in sorted(SWEEPS.glob("*/comparison.md")):
        sweep(folder.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
