"""What a method costs, beside what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from recsys.compare.finished_runs import FinishedRun, list_sources
from recsys.compare.keys import list_timing_keys
from recsys.compare.methods import Method
from recsys.runtime.files import CHECKPOINTS

MIB = 1 << 20


@dataclass(frozen=True)
class CostKind:
    """One kind of cost.

    Attributes:
        key: Its name in `comparison.json`.
        title: Head of its column, with the unit.
        read: The figure of a run, None where there is none.
        show: The figure as text.
    """

    key: str
    title: str
    read: Callable[[FinishedRun], float | None]
    show: Callable[[float], str]


def _make_figure_reader(key: str) -> Callable[[FinishedRun], float | None]:
    def read_figure(run: FinishedRun) -> float | None:
        value = run.result["cost"].get(key)
        return None if value is None else float(value)

    return read_figure


def _make_total_reader(key: str) -> Callable[[FinishedRun], float | None]:
    """A figure of all ranks; none in a run of before, which knew that of the first rank only."""
    read = _make_figure_reader(key)

    def read_total(run: FinishedRun) -> float | None:
        ranks = run.result["cost"].get("ranks", 1)
        return read(run) if ranks == _count_processes(run) else None

    return read_total


def _count_processes(run: FinishedRun) -> int:
    """How many processes a run was to have; runs of before nodes were counted had one machine."""
    trainer = run.config["trainer"]
    return int(trainer["devices"]) * int(trainer.get("nodes", 1))


def _make_kept_reader(own: str, kept: str) -> Callable[[FinishedRun], float | None]:
    """What a method takes on a machine that has nothing of what runs share.

    Nor has it the runs that a run builds on, each of which counts once, with what it shares.
    """
    read, shared = _make_total_reader(own), _make_figure_reader(kept)

    def read_with_kept(run: FinishedRun) -> float | None:
        rows = [row["cost"] for row in list_sources(run.built_on)]
        parts = [read(run), shared(run), *(row.get(key) for row in rows for key in (own, kept))]
        known = [float(part) for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    return read_with_kept


def _find_largest_rank(run: FinishedRun) -> float | None:
    """Memory of the largest rank, where there are several."""
    several = run.result["cost"].get("ranks", 1) > 1
    return _make_total_reader("largest_rank_peak_mb_sampled")(run) if several else None


def _compute_trained_share(run: FinishedRun) -> float | None:
    """Trained parameters in percent of all; what takes no step trains none."""
    cost = run.result["cost"]
    if run.result.get("validation", {}).get("steps") == 0:
        return 0.0
    return 100 * cost["trained_parameters"] / cost["parameters"] if cost["parameters"] else None


def _make_training_reader(key: str) -> Callable[[FinishedRun], float | None]:
    """A figure of training; what does not train has none, which is not a zero."""
    read = _make_figure_reader(key)
    return lambda run: read(run) if run.trains else None


def _find_cache_seconds(run: FinishedRun) -> float | None:
    """Seconds of building the kept states or vectors, where this run built them."""
    cache = run.result["cost"].get("cache")
    return float(cache["build_seconds"]) if cache and cache.get("built") else None


def _measure_disk(run: FinishedRun) -> float | None:
    """MiB of the checkpoint that a run leaves."""
    files = list((run.folder / CHECKPOINTS).glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) / MIB if files else None


def format_plain(value: float) -> str:
    """Three figures, with k, M, G, T or P for large numbers.

    Args:
        value: At least 0.
    """
    if not value:
        return "0"
    for limit, sign in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= 0.9995 * limit:
            return f"{format_plain(value / (1e3 if sign == 'k' else limit))}{sign}"
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _format_percent(value: float) -> str:
    return f"{value:.2f}" if value else "0"


COSTS = (
    CostKind("trained_share", "trained, %", _compute_trained_share, _format_percent),
    CostKind("tokens", "tokens", _make_training_reader("tokens"), format_plain),
    CostKind("train_flops", "FLOPs", _make_training_reader("train_flops"), format_plain),
    CostKind("train_seconds", "training, s", _make_training_reader("train_seconds"), format_plain),
    CostKind(
        "method_cpu_seconds",
        "method, CPU s",
        _make_total_reader("method_cpu_seconds"),
        format_plain,
    ),
    CostKind(
        "method_kept_cpu_seconds",
        "with what is kept, CPU s",
        _make_kept_reader("method_cpu_seconds", "kept_cpu_seconds"),
        format_plain,
    ),
    CostKind("method_seconds", "method, s", _make_figure_reader("method_seconds"), format_plain),
    CostKind(
        "method_kept_seconds",
        "with what is kept, s",
        _make_kept_reader("method_seconds", "kept_seconds"),
        format_plain,
    ),
    CostKind("seconds", "whole run, s", _make_figure_reader("seconds"), format_plain),
    CostKind("cpu_seconds", "CPU, s", _make_total_reader("cpu_seconds"), format_plain),
    CostKind("cache_build_seconds", "cache building, s", _find_cache_seconds, format_plain),
    CostKind(
        "peak_mb",
        "peak memory (sampled), MiB",
        _make_total_reader("anonymous_peak_mb_sampled"),
        format_plain,
    ),
    CostKind(
        "largest_rank_peak_mb", "largest process (sampled), MiB", _find_largest_rank, format_plain
    ),
    CostKind(
        "device_peak_mb",
        "peak on the GPU, MiB",
        _make_figure_reader("device_peak_mb"),
        format_plain,
    ),
    CostKind("disk_mb", "on disk, MiB", _measure_disk, format_plain),
)


def compute_costs(method: Method) -> dict[str, float | None]:
    """Mean over a method's runs of each kind of cost, None where no run has it."""
    out: dict[str, float | None] = {}
    for cost in COSTS:
        found = [value for value in map(cost.read, method.runs) if value is not None]
        out[cost.key] = sum(found) / len(found) if found else None
    return out


@dataclass(frozen=True)
class CostBasis:
    """By what the methods are set against each other.

    Attributes:
        key: Of the kind of cost.
        unit: What it counts, in a sentence.
        note: What a reader should know of it, or empty.
        kept: Key of the same cost with what is kept between runs; empty where that is within.
    """

    key: str
    unit: str
    note: str = ""
    kept: str = ""


def choose_basis(methods: Sequence[Method]) -> CostBasis:
    """One kind of cost for all methods: what each took itself, without floors and tracking.

    Args:
        methods: All that are compared.

    Returns:
        CPU seconds, or seconds where a GPU did the work, or several processes of which only the
        first one's CPU seconds are known; of the whole command where a run knows no other.
    """
    runs = [run for method in methods for run in method.runs]
    elsewhere = any(
        run.config["trainer"]["accelerator"] == "gpu"
        or _count_processes(run) != run.result["cost"].get("ranks", 1)
        for run in runs
    )
    found = _ON_CLOCK if elsewhere else _ON_CPU
    if all(run.result["cost"].get(found.key) is not None for run in runs):
        return found
    return CostBasis(
        "cpu_seconds",
        "CPU seconds",
        "CPU seconds are those of the whole command, with floors, tracking and caches that a run "
        "happened to build: some runs are of before the seconds of a method were measured apart; "
        "fit them again to compare methods alone.",
    )


_ON_CPU = CostBasis("method_cpu_seconds", "CPU seconds", kept="method_kept_cpu_seconds")
_ON_CLOCK = CostBasis("method_seconds", "seconds", kept="method_kept_seconds")


def find_unlike(methods: Sequence[Method]) -> list[str]:
    """In what the runs' seconds are unlike, so that they may not be compared; empty where not.

    What makes a method costs what it costs: only what changes no result is looked at.

    Args:
        methods: All that are compared.
    """
    runs = [run for method in methods for run in method.runs]
    trained = [run for run in runs if run.trains]
    groups = ((runs, list_timing_keys("all")), (trained, list_timing_keys("encoder")))
    unlike = [
        name
        for those, names in groups
        for name in names
        if len({str(_find_value(run, name)) for run in those}) > 1
    ]
    for name in ("torch", "cpu"):
        # A run of before the processor was noted may be of any: that is unknown, not unlike.
        said = {run.result.get("versions", {}).get(name) for run in runs}
        unlike += [f"versions.{name}"] if len({str(each) for each in said if each}) > 1 else []
    # The whole command's seconds hold those of the tracking, a method's own do not.
    if choose_basis(methods).note and len({_find_value(run, "tracking.wandb") for run in runs}) > 1:
        unlike.append("tracking.wandb")
    return unlike


def _find_value(run: FinishedRun, name: str) -> object:
    """A value of a run's configuration by its dotted key; None in a run of before the key."""
    node: object = run.config
    for part in name.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
