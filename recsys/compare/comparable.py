"""Whether runs answered the same question, so that they may be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recsys.compare.finished_runs import SAME_CASES, FinishedRun
from recsys.compare.measures.case_values import find_prefix
from recsys.config.yaml_file import flatten_keys
from recsys.errors import ConfigError


def _make_result_reader(part: str, key: str) -> Callable[[FinishedRun], object]:
    return lambda run: run.result[part].get(key)


def _find_train_users(run: FinishedRun) -> object:
    return run.config["data"]["train_users"]


FIELDS: tuple[tuple[str, Callable[[FinishedRun], object], str], ...] = (
    ("data.fingerprint", _make_result_reader("data", "fingerprint"), "run both on the same data"),
    ("data.split", _make_result_reader("data", "split"), "split both in the same way"),
    (
        "data.roles_sha256",
        _make_result_reader("data", "roles_sha256"),
        "split both in the same way",
    ),
    ("protocol.name", _make_result_reader("protocol", "name"), "set the same evaluation.protocol"),
    (
        "protocol.mask_history",
        _make_result_reader("protocol", "mask_history"),
        "set the same evaluation.mask_history",
    ),
    (
        "protocol.repeated",
        _make_result_reader("protocol", "repeated"),
        "count items that users had before in the same way: set the same evaluation.repeated",
    ),
    ("protocol.catalog", _make_result_reader("protocol", "catalog"), "rank the same catalog"),
    (
        "protocol.availability",
        _make_result_reader("protocol", "availability"),
        "rank what can be had at the time of a case in both, or in neither: fit the older again",
    ),
    (
        "protocol.candidates",
        _make_result_reader("protocol", "candidates"),
        "set the same evaluation.candidates",
    ),
    (
        "what stands before the metrics",
        find_prefix,
        "count hits among the same items in the same way",
    ),
)
"""What two results must agree in: where it stands, how it is read, the remedy."""


def check_comparable(runs: Sequence[FinishedRun]) -> None:
    """Refuses runs that did not answer the same question.

    Encoder, tuning, architecture, objective and the rest of the configuration may differ: they
    are what is compared.

    Raises:
        ConfigError: Names two runs and the field in which they differ.
    """
    first = runs[0]
    for other in runs[1:]:
        for field, read, remedy in FIELDS:
            _check_field(first, other, field, read(first), read(other), remedy)
        _check_cases(first, other)
        _check_lists(first, other)
    # What does not train has no training users: floors always count all of them.
    trained = [run for run in runs if run.trains]
    for other in trained[1:]:
        field, remedy = "data.train_users", "train both on the same users"
        _check_field(
            trained[0],
            other,
            field,
            _find_train_users(trained[0]),
            _find_train_users(other),
            remedy,
        )
        if _find_train_users(other) is not None:
            field = "data.sample_seed"
            drawn = [flatten_keys(run.config).get(field, 0) for run in (trained[0], other)]
            _check_field(trained[0], other, field, drawn[0], drawn[1], remedy)


def _check_lists(first: FinishedRun, other: FinishedRun) -> None:
    """Refuses other candidate lists, of the test part or of the one that picked checkpoints."""
    lists = [run.result["data"].get("lists_sha256") or {} for run in (first, other)]
    for part in ("test", "val"):
        field = f"data.lists_sha256.{part}"
        remedy = "rank the same candidate lists (evaluation.candidates_from)"
        _check_field(first, other, field, lists[0].get(part), lists[1].get(part), remedy)


def _check_field(
    first: FinishedRun, other: FinishedRun, field: str, left: object, right: object, remedy: str
) -> None:
    """Refuses two runs with different values of a field."""
    if left == right:
        return
    shown = [text if len(text) <= 48 else f"{text[:12]}..." for text in (str(left), str(right))]
    raise ConfigError(
        f"{first.folder} and {other.folder} cannot be compared: {field} is {shown[0]} in the one "
        f"and {shown[1]} in the other; {_find_sample_remedy(first, other) or remedy}."
    )


def _check_cases(first: FinishedRun, other: FinishedRun) -> None:
    """Refuses runs that evaluated other cases, or saw them otherwise."""
    a, b = first.cases, other.cases
    if len(a) != len(b):
        _check_field(
            first, other, "the number of test cases", len(a), len(b), "evaluate the same cases"
        )
    for column in SAME_CASES:
        unlike = (a[column] != b[column]).arg_true()
        if len(unlike):
            at = int(unlike[0])
            raise ConfigError(
                f"{first.folder} and {other.folder} cannot be compared: {column} in cases.parquet "
                f"is {a[column][at]} in the one and {b[column][at]} in the other (row {at}); "
                f"{_find_sample_remedy(first, other) or 'evaluate the same cases'}."
            )


def _find_sample_remedy(first: FinishedRun, other: FinishedRun) -> str:
    """The remedy where another sample may be the reason, else nothing."""
    key = "data.sample_seed"
    if flatten_keys(first.config).get(key) == flatten_keys(other.config).get(key):
        return ""
    return f"{key} draws other users or cases: give both runs the same"
