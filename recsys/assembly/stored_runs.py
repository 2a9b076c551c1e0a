"""Finished runs that another run builds on: their item vectors, their scores, what they rank."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from recsys.assembly.assembled import Assembly, StoredRun
from recsys.config.compose import RunConfig, get_choice_name, read_config
from recsys.config.schema import ENCODER
from recsys.data.batches.rows import CandidateLists
from recsys.data.splits.split import Split
from recsys.errors import ConfigError, DataError
from recsys.recommender.base import Recommender
from recsys.recommender.fitted import FittedRecommender, restore_fit
from recsys.runs import provenance
from recsys.runs.folder import check_is_run
from recsys.runs.result_file import read_result
from recsys.runtime.files import BEST, CONFIG, FIT


@dataclass(frozen=True)
class DataIdentity:
    """What two runs share where the one may build on the other.

    Attributes:
        fingerprint: SHA-256 of the tables' contents.
        roles: SHA-256 of the events and of what each is held out for.
        positive_from: Lowest rating that counts as liked.
    """

    fingerprint: str
    roles: str
    positive_from: float | None

    @classmethod
    def compute(cls, run: RunConfig, split: Split, fingerprint: str) -> DataIdentity:
        """Of a run that is being assembled."""
        roles = str(provenance.compute_data_digests(split, {})["roles_sha256"])
        return cls(fingerprint, roles, run.data.positive_from)


def open_run(key: str, folder: str, data: DataIdentity, use: str) -> StoredRun:
    """A finished run, once it is sure that it has seen the same events held out.

    Args:
        key: The key that names it, for a sentence.
        folder: Where it lies.
        data: Of the run that builds on it.
        use: What it is asked for, as in "mine from a run".

    Raises:
        ConfigError: It is no run, is not complete, or has other data, another split or other
            positive events.
    """
    path = Path(folder)
    asked = f"{key}={folder}"
    check_is_run(key, folder)
    config = read_config(path / CONFIG)
    try:
        result = read_result(path)
        own = (str(result["data"]["fingerprint"]), str(result["data"]["roles_sha256"]))
        encoder = str(result.get("encoder", {}).get("sha256"))
    except FileNotFoundError:
        raise ConfigError(f"{asked}: the run is not complete, result.json is missing.") from None
    except (DataError, TypeError, KeyError, AttributeError):
        raise ConfigError(f"{asked}: result.json is damaged; run fit again.") from None
    if own[0] != data.fingerprint:
        raise ConfigError(
            f"{asked} was trained on other data (items, users or interactions differ); {use} with "
            "the same data options."
        )
    if own[1] != data.roles or config.data.positive_from != data.positive_from:
        raise ConfigError(
            f"{asked} splits the events in another way or likes other ones, so that it may have "
            "learned from this run's test part; give both the same data.split and "
            "data.positive_from."
        )
    return StoredRun(path, config, result, _compute_digest(asked, path, config), encoder)


def open_start(run: RunConfig) -> StoredRun | None:
    """The finished run from whose weights training starts; None where it starts anew.

    Its data may be other data: what training goes on with is the reason to start from it.

    Raises:
        ConfigError: It is no run, is not complete, or of another tuning or architecture.
    """
    if run.start_from is None:
        return None
    if not run.architecture.trains:
        raise ConfigError(
            f"start_from={run.start_from}: {get_choice_name(run.architecture)} does not train, so "
            "that there are no weights to start from; leave it out."
        )
    path = Path(run.start_from)
    key = f"start_from={path}"
    check_is_run("start_from", str(path))
    config = read_config(path / CONFIG)
    if (config.tuning, config.architecture) != (run.tuning, run.architecture):
        raise ConfigError(
            f"{key} has another tuning or architecture, whose weights have no place in this run; "
            "give both the same."
        )
    try:
        result = read_result(path)
        encoder = str(result.get("encoder", {}).get("sha256"))
    except FileNotFoundError:
        raise ConfigError(f"{key}: the run is not complete, result.json is missing.") from None
    return StoredRun(path, config, result, _compute_digest(key, path, config), encoder)


def open_sources(run: RunConfig, data: DataIdentity) -> tuple[StoredRun, ...]:
    """The finished runs that the architecture builds on, each known to have seen the same data.

    Raises:
        ConfigError: One of them cannot be used.
    """
    named, members = run.architecture.vectors_from, run.architecture.member_runs
    if named is not None and named != ENCODER:
        return (open_run("architecture.vectors", named, data, "take vectors of a run"),)
    sources = tuple(
        open_run("architecture.members", folder, data, "combine runs") for folder in members
    )
    for stored in sources:
        check_same_protocol(stored, run)
    return sources


def open_retriever(run: RunConfig, data: DataIdentity) -> StoredRun | None:
    """The finished run whose best items are the candidate lists; None where no run's are.

    Raises:
        ConfigError: It cannot be used.
    """
    folder = run.evaluation.candidates_from
    if folder is None:
        return None
    return open_run("evaluation.candidates_from", folder, data, "take candidates of a run")


def name_runs(sources: Sequence[StoredRun]) -> list[str]:
    """What runs are called beside each other: as short as tells them apart.

    Args:
        sources: The runs.

    Returns:
        The experiment of each, or its tuning and architecture; with the seed, or else the folder,
        where that is not enough.
    """
    plain = [_name_method(stored.config) for stored in sources]
    seeded = [f"{name} seed {s.config.seed}" for name, s in zip(plain, sources, strict=True)]
    names = []
    for stored, name, longer in zip(sources, plain, seeded, strict=True):
        several = plain.count(name) > 1
        unlike = longer if seeded.count(longer) == 1 else str(stored.folder)
        names.append(unlike if several else name)
    return names


def _name_method(run: RunConfig) -> str:
    """The experiment's name, or tuning and architecture."""
    axes = [get_choice_name(axis) for axis in (run.tuning, run.architecture) if axis is not None]
    return run.experiment or " ".join(axes)


def check_same_protocol(stored: StoredRun, run: RunConfig) -> None:
    """Refuses a member that was judged by another protocol, or on other cases.

    Args:
        stored: The member.
        run: What it is to score for.

    Raises:
        ConfigError: It was; the sentence names the key.
    """
    own, other = run.evaluation, stored.config.evaluation
    names = ["protocol", "mask_history", "hit_by", "max_cases"]
    if own.protocol == "candidates":
        names.append("candidates")
        if own.candidates_from is None or other.candidates_from is None:
            names.append("candidates_from")  # lists of the same run at another place are the same
    if own.protocol == "sampled":
        names += ["sampled_negatives", "sampled_by"]
    keys = [(f"evaluation.{name}", getattr(other, name), getattr(own, name)) for name in names]
    if own.max_cases is not None:
        keys.append(("data.sample_seed", stored.config.data.sample_seed, run.data.sample_seed))
    for key, theirs, ours in keys:
        if theirs != ours:
            raise ConfigError(
                f"architecture.members={stored.folder} has {key}={_format(theirs)} and this run "
                f"{_format(ours)}, so that their figures are not of the same; set "
                f"{key}={_format(theirs)}, or fit the member again."
            )


def _format(value: object) -> str:
    """A value as a word of a command has it."""
    return "null" if value is None else str(value).lower()


def check_same_lists(
    sources: Sequence[StoredRun], split: Split, lists: Mapping[int, CandidateLists]
) -> None:
    """Refuses a member that ranked other lists.

    Args:
        sources: The members.
        split: Of the run that they score for.
        lists: What that ranks, by role.

    Raises:
        ConfigError: The lists of one differ.
    """
    own = cast(
        Mapping[str, str], provenance.compute_data_digests(split, lists).get("lists_sha256", {})
    )
    for stored in sources:
        theirs = stored.result["data"].get("lists_sha256", {})
        if any(
            theirs.get(part, digest) != digest for part, digest in cast(dict[str, str], own).items()
        ):
            raise ConfigError(
                f"architecture.members={stored.folder} ranked other lists: proposals are made of "
                f"histories of data.max_history={stored.config.data.max_history} there; set it to "
                "that, or fit the member again."
            )


def _compute_digest(asked: str, folder: Path, config: RunConfig) -> str:
    """Of a run's configuration and of all that it has learned."""
    digest = hashlib.sha256((folder / CONFIG).read_bytes())
    if config.architecture.trains:
        try:
            digest.update((folder / BEST).read_bytes())
        except OSError:
            raise ConfigError(f"{asked}: {BEST.name} is missing; run fit again.") from None
    if (folder / FIT).is_file():
        digest.update((folder / FIT).read_bytes())
    return digest.hexdigest()


def assemble_run(stored: StoredRun, build: Callable[[RunConfig], Assembly]) -> Assembly:
    """A stored run's data and recommender, with all that it has learned.

    Args:
        stored: The run.
        build: Assembles a configuration.

    Raises:
        ConfigError: A file of the run is missing or damaged.
    """
    made = build(drop_hard_negatives(drop_retriever(stored.config)))
    restore(made.recommender, stored.config, stored.folder)
    return made


def drop_retriever(run: RunConfig) -> RunConfig:
    """A stored run whose candidate lists are of no further use: it is to score, not to be tested.

    The run that made them may be gone.
    """
    return replace(run, evaluation=replace(run.evaluation, candidates_from=None))


def drop_hard_negatives(run: RunConfig) -> RunConfig:
    """A stored run without hard negatives of its own: it is to rank, not to train."""
    if run.data.negatives != "hard":
        return run
    usual: dict[str, Any] = {
        f.name: f.default for f in fields(run.data) if f.name.startswith("hard_")
    }
    return replace(run, data=replace(run.data, negatives="drawn", **usual))


def restore(recommender: Recommender, config: RunConfig, folder: Path) -> None:
    """Gives a recommender back what it has learned in a finished run.

    Args:
        recommender: As it was assembled of the run's configuration.
        config: The configuration.
        folder: Of the run.

    Raises:
        ConfigError: A file is missing or damaged.
    """
    if isinstance(recommender, FittedRecommender):
        if recommender.needs_fit:
            restore_fit(recommender, folder)
    elif config.architecture.trains:
        from recsys.recommender.trainable import require_trainable

        own = require_trainable(recommender)
        own.load_trained(folder / BEST, origin=own.parts.origin)
