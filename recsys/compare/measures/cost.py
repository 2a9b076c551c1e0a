"""What a method costs, beside what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from recsys.compare.finished_runs import PastRun
from recsys.compare.keys import of_seconds
from recsys.compare.methods import Method

MIB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """One kind of cost.

    Attributes:
        key: Its name in `comparison.json`.
        title: Head of its column, with the unit.
        read: The figure of a run, None where there is none.
        show: The figure as text.
    """

    key: str
    title: str
    read: Callable[[PastRun], float | None]
    show: Callable[[float], str]


def _figure(key: str) -> Callable[[PastRun], float | None]:
    def read(run: PastRun) -> float | None:
        value = run.result["cost"].get(key)
        return None if value is None else float(value)

    return read


def _of_all(key: str) -> Callable[[PastRun], float | None]:
    """A figure of all ranks; none in a run of before, which knew that of the first rank only."""
    read = _figure(key)

    def complete(run: PastRun) -> float | None:
        ranks = run.result["cost"].get("ranks", 1)
        return read(run) if ranks == run.config["trainer"]["devices"] else None

    return complete


def _with_kept(own: str, kept: str) -> Callable[[PastRun], float | None]:
    """What a method takes on a machine that has nothing of what runs share."""
    read, shared = _of_all(own), _figure(kept)

    def whole(run: PastRun) -> float | None:
        parts = read(run), shared(run)
        return None if parts[0] is None or parts[1] is None else parts[0] + parts[1]

    return whole


def _largest(run: PastRun) -> float | None:
    """Memory of the largest rank, where there are several."""
    several = run.result["cost"].get("ranks", 1) > 1
    return _of_all("largest_rank_peak_mb_sampled")(run) if several else None


def _share(run: PastRun) -> float | None:
    """Trained parameters in percent of all; what takes no step trains none."""
    cost = run.result["cost"]
    if run.result.get("validation", {}).get("steps") == 0:
        return 0.0
    return 100 * cost["trained_parameters"] / cost["parameters"] if cost["parameters"] else None


def _trained(key: str) -> Callable[[PastRun], float | None]:
    """A figure of training; what does not train has none, which is not a zero."""
    read = _figure(key)
    return lambda run: read(run) if run.trains else None


def _cache(run: PastRun) -> float | None:
    """Seconds of building the kept states or vectors, where this run built them."""
    cache = run.result["cost"].get("cache")
    return float(cache["build_seconds"]) if cache and cache.get("built") else None


def _disk(run: PastRun) -> float | None:
    """MiB of the checkpoint that a run leaves."""
    files = list((run.folder / "checkpoints").glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) / MIB if files else None


def plain(value: float) -> str:
    """Three figures, with k, M, G, T or P for large numbers.

    Args:
        value: At least 0.
    """
    if not value:
        return "0"
    for limit, sign in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= 0.9995 * limit:
            return f"{plain(value / (1e3 if sign == 'k' else limit))}{sign}"
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _percent(value: float) -> str:
    return f"{value:.2f}" if value else "0"


COSTS = (
    Cost("trained_share", "trained, %", _share, _percent),
    Cost("tokens", "tokens", _trained("tokens"), plain),
    Cost("train_flops", "FLOPs", _trained("train_flops"), plain),
    Cost("train_seconds", "training, s", _trained("train_seconds"), plain),
    Cost("method_cpu_seconds", "method, CPU s", _of_all("method_cpu_seconds"), plain),
    Cost(
        "method_kept_cpu_seconds",
        "with what is kept, CPU s",
        _with_kept("method_cpu_seconds", "kept_cpu_seconds"),
        plain,
    ),
    Cost("method_seconds", "method, s", _figure("method_seconds"), plain),
    Cost(
        "method_kept_seconds",
        "with what is kept, s",
        _with_kept("method_seconds", "kept_seconds"),
        plain,
    ),
    Cost("seconds", "whole run, s", _figure("seconds"), plain),
    Cost("cpu_seconds", "CPU, s", _of_all("cpu_seconds"), plain),
    Cost("cache_build_seconds", "cache building, s", _cache, plain),
    Cost("peak_mb", "peak memory (sampled), MiB", _of_all("anonymous_peak_mb_sampled"), plain),
    Cost("largest_rank_peak_mb", "largest process (sampled), MiB", _largest, plain),
    Cost("device_peak_mb", "peak on the GPU, MiB", _figure("device_peak_mb"), plain),
    Cost("disk_mb", "on disk, MiB", _disk, plain),
)


def costs(method: Method) -> dict[str, float | None]:
    """Mean over a method's runs of each kind of cost, None where no run has it."""
    out: dict[str, float | None] = {}
    for cost in COSTS:
        found = [value for value in map(cost.read, method.runs) if value is not None]
        out[cost.key] = sum(found) / len(found) if found else None
    return out


@dataclass(frozen=True)
class Basis:
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


def basis(methods: Sequence[Method]) -> Basis:
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
        or run.config["trainer"]["devices"] != run.result["cost"].get("ranks", 1)
        for run in runs
    )
    found = _ON_CLOCK if elsewhere else _ON_CPU
    if all(run.result["cost"].get(found.key) is not None for run in runs):
        return found
    return Basis(
        "cpu_seconds",
        "CPU seconds",
        "CPU seconds are those of the whole command, with floors, tracking and caches that a run "
        "happened to build: some runs are of before the seconds of a method were measured apart; "
        "fit them again to compare methods alone.",
    )


_ON_CPU = Basis("method_cpu_seconds", "CPU seconds", kept="method_kept_cpu_seconds")
_ON_CLOCK = Basis("method_seconds", "seconds", kept="method_kept_seconds")


def alike(methods: Sequence[Method]) -> list[str]:
    """In what the runs' seconds are unlike, so that they may not be compared; empty where not.

    What makes a method costs what it costs: only what changes no result is looked at.

    Args:
        methods: All that are compared.
    """
    runs = [run for method in methods for run in method.runs]
    trained = [run for run in runs if run.trains]
    groups = ((runs, of_seconds("all")), (trained, of_seconds("encoder")))
    unlike = [
        name
        for those, names in groups
        for name in names
        if len({str(_key(run, name)) for run in those}) > 1
    ]
    for name in ("torch", "cpu"):
        # A run of before the processor was noted may be of any: that is unknown, not unlike.
        said = {run.result.get("versions", {}).get(name) for run in runs}
        unlike += [f"versions.{name}"] if len({str(each) for each in said if each}) > 1 else []
    # The whole command's seconds hold those of the tracking, a method's own do not.
    if basis(methods).note and len({_key(run, "tracking.wandb") for run in runs}) > 1:
        unlike.append("tracking.wandb")
    return unlike


def _key(run: PastRun, name: str) -> object:
    """A value of a run's configuration by its dotted key; None in a run of before the key."""
    node: object = run.config
    for part in name.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
