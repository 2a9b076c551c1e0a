"""What a comparison asks and what it found, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

from recsys.compare.measures.cost import CostBasis
from recsys.compare.measures.users import UserComparison
from recsys.compare.statistics.contrasts import Contrast, MeanEstimate


@dataclass(frozen=True)
class ComparisonSettings:
    """What is asked.

    Attributes:
        metric: Of the differences, the intervals and the plots.
        baseline: Label of the method that the others are compared with.
        margin: Difference that does not matter, in percent points, or None.
        family: Name of the contrasts that are corrected together.
        level: Coverage of the intervals; 1 - level is the error rate of the tests.
        slices: Columns to slice by; None means the default ones that are there.
    """

    metric: str
    baseline: str
    margin: float | None
    family: str
    level: float
    slices: tuple[str, ...] | None

    @property
    def alpha(self) -> float:
        """Error rate of the tests."""
        return round(1 - self.level, 12)


@dataclass(frozen=True)
class MeanStd:
    """A figure over seeds: of a metric as a share (not in percent).

    Attributes:
        mean: Mean over the runs.
        deviation: Standard deviation over the runs; None for one run.
    """

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class MethodRow:
    """A method in the tables.

    Attributes:
        label: Its name.
        seeds: Of its runs.
        runs: Names of their folders.
        trains: Whether another seed could give another result.
        metrics: By name, None where undefined.
        interval: Of the metric in question; None for a floor of which only means are known.
        cost: By key of `recsys.compare.measures.cost.COSTS`.
        floor: Whether it was measured on the way by other runs, so that only means are known.
        beyond: Measures beyond accuracy by name, in their own units; None where a run has none.
    """

    label: str
    seeds: list[int]
    runs: list[str]
    trains: bool
    metrics: dict[str, MeanStd | None]
    interval: MeanEstimate | None
    cost: dict[str, float | None]
    floor: bool = False
    beyond: dict[str, MeanStd | None] = field(default_factory=dict)


@dataclass(frozen=True)
class BaselineDifference:
    """A method against the baseline.

    Attributes:
        label: The method.
        found: The contrast, method minus baseline, as shares.
        p_holm: Its p, corrected within the family.
        equivalent_holm: p of the equivalence test, corrected within the family; None without a
            margin.
    """

    label: str
    found: Contrast
    p_holm: float
    equivalent_holm: float | None


@dataclass(frozen=True)
class SliceRow:
    """A method in a part of the cases.

    Attributes:
        label: The method.
        mean: Over runs and cases, as a share.
        interval: Of the mean; None where the part is of few users.
        found: Against the baseline; None for the baseline itself, and where the part is of few
            users. Not corrected: slices are to look at, not to prove with.
    """

    label: str
    mean: float
    interval: MeanEstimate | None
    found: Contrast | None


@dataclass(frozen=True)
class SliceResult:
    """A part of the cases.

    Attributes:
        column: It is a part by this.
        label: What its cases have in common.
        cases: How many they are.
        rows: One a method.
    """

    column: str
    label: str
    cases: int
    rows: list[SliceRow]


@dataclass(frozen=True)
class LearningCurve:
    """A validation metric along the training of a run.

    Attributes:
        label: The method.
        seed: Of the run.
        seconds: Trained until each validation, validations not counted.
        values: Of the metric, as shares.
    """

    label: str
    seed: int
    seconds: list[float]
    values: list[float]


@dataclass(frozen=True)
class Comparison:
    """All that the outputs show.

    Attributes:
        question: What was asked.
        held: What all runs have in common.
        columns: Metrics of the table, in order.
        rows: Methods, then floors.
        differences: Every method but the baseline.
        parts: Slices.
        users: Wins and losses, by method.
        curve_metric: What the curves show, empty without any.
        curves: One a run that trained.
        basis: By which cost sentences, front and plot set the methods against each other.
        front: Labels of the methods that no other beats in both quality and this cost.
        front_kept: The same by the cost with what is kept between runs; empty where not known.
        unlike: In what the circumstances of the runs' seconds differ.
        notes: What a reader should know.
        sentences: What the comparison says.
        verdict: What it says first.
    """

    question: ComparisonSettings
    held: dict[str, object]
    columns: list[str]
    rows: list[MethodRow]
    differences: list[BaselineDifference]
    parts: list[SliceResult]
    users: list[UserComparison]
    curve_metric: str
    curves: list[LearningCurve]
    basis: CostBasis
    front: list[str]
    unlike: list[str]
    notes: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    front_kept: list[str] = field(default_factory=list)
    verdict: str = ""

    @property
    def alpha(self) -> float:
        """Error rate of the tests."""
        return self.question.alpha

    def find_row(self, label: str) -> MethodRow:
        """The row of a method.

        Raises:
            KeyError: There is none.
        """
        for row in self.rows:
            if row.label == label and not row.floor:
                return row
        raise KeyError(label)
