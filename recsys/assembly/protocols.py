"""What each protocol of evaluation ranks, and what each source of negatives trains on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from recsys.assembly.candidates import Retriever, make_candidate_lists, make_retrieved_lists
from recsys.assembly.checks import check_labels
from recsys.config.compose import RunConfig, get_choice_name
from recsys.config.schema import EvaluationOptions
from recsys.data.batches.examples import TEST, TRAIN, VAL, Examples
from recsys.data.batches.impressions import (
    count_impressions,
    drop_lone_clicks,
    make_impression_lists,
)
from recsys.data.batches.rows import CandidateLists, make_label_lists
from recsys.data.batches.sampled_lists import CAUTION, make_sampled_lists
from recsys.data.columns.arrays import Ints, sample
from recsys.data.context import ContextFeatures
from recsys.data.describe import find_repeats
from recsys.data.splits.split import Split
from recsys.data.splits.targets import describe_unpredictable
from recsys.data.tables import Tables
from recsys.errors import ConfigError
from recsys.evaluation.equal_items import EqualItems
from recsys.metrics.names import BALANCED, FEWEST, describe_balance
from recsys.recommender.base import Recommender
from recsys.runtime.store import Store

FLOORS = ("popularity", "tfidf")
"""What proposes candidates."""
REVERSED = "reversed popularity"
"""The floor that shows whether lists tell a target by their making."""
RETRIEVER = "retriever"
"""The floor of lists that a finished run made: its own order."""
CHANCE = "chance"
"""The floor of every list: its items in random order."""
KINDS = {REVERSED: "reversed", CHANCE: "equal"}
"""Floors that are popularity of another kind."""


def make_examples(
    run: RunConfig,
    split: Split,
    items: int,
    worded: npt.NDArray[np.bool_] | None,
    context: ContextFeatures,
) -> Examples:
    """Training queries and cases.

    Args:
        run: The options.
        split: The events.
        items: Number of items in the catalog.
        worded: (N,) whether a text says something of each event's query where no history does;
            None where no query is a text.
        context: What is known of each event's query.

    Raises:
        ConfigError: Negatives come from impressions, and there are none to train on.
    """
    data = run.data
    chosen = (data.train_users, data.sample_seed, data.user_reviews)
    examples = Examples(
        split,
        items,
        data.max_history,
        data.targets,
        *chosen,
        worded=worded,
        context=context.event_codes,
        now=context.codes_now,
        dislikes=run.architecture.reads_dislikes,
        repeated=find_repeats(split, items) if run.evaluation.repeated == "apart" else None,
    )
    return drop_lone_clicks(examples) if data.negatives == "impression" else examples


def make_lists(
    run: RunConfig,
    made: Examples,
    floors: Callable[[], Sequence[Recommender]],
    retriever: Retriever | None,
    key: Mapping[str, object],
) -> dict[int, CandidateLists]:
    """What is ranked in validation and test, where it is not the whole catalog.

    A run that does not test has no lists of the test part.

    Args:
        run: The options.
        made: Queries and cases.
        floors: Makes the baselines that propose candidates.
        retriever: The finished run that does in their place; None: they do.
        key: What kept candidate lists depend on: data, split.

    Raises:
        ConfigError: The data cannot give the lists.
    """
    options = run.evaluation
    sampled = run.evaluation.max_cases, run.data.sample_seed
    roles = (VAL, TEST) if options.test else (VAL,)
    if options.protocol == "catalog":
        return {}
    if options.protocol == "labels":
        for role in roles:
            check_labels(made.split, role)
        return {role: make_label_lists(made.split, role, *sampled) for role in roles}
    if options.protocol == "impressions":
        return {role: make_impression_lists(made.split, role, *sampled) for role in roles}
    cases = {role: made.select_cases(role, *sampled, new=True) for role in roles}
    if options.protocol == "sampled":
        return {
            role: make_sampled_lists(
                made, at, options.sampled_negatives, options.sampled_by, options.mask_history
            )
            for role, at in cases.items()
        }
    if retriever is not None:
        return {
            role: make_retrieved_lists(
                made, at, retriever, options.candidates, options.mask_history, Store(), key
            )
            for role, at in cases.items()
        }
    makers = floors()
    return {
        role: make_candidate_lists(
            made, at, makers, options.candidates, options.mask_history, Store(), key
        )
        for role, at in cases.items()
    }


def make_equal_items(run: RunConfig, tables: Tables) -> EqualItems | None:
    """Items with the same value of the column that is a hit; an item without one is alone."""
    column = run.evaluation.hit_by
    if column is None:
        return None
    values = tables.items[column].cast(pl.String)
    own = pl.Series(np.arange(len(values))).cast(pl.String)
    # a value and a row number are never taken for each other
    keys = pl.when(values.is_null()).then("row " + own).otherwise("value " + values)
    codes = pl.select(keys.rank("dense") - 1).to_series().to_numpy().astype(np.int64)
    return EqualItems(torch.from_numpy(codes))


def get_final_role(run: RunConfig) -> int:
    """The part that a run's figures are of: test, or validation where it does not test."""
    return TEST if run.evaluation.test else VAL


def describe_caveats(
    run: RunConfig, split: Split, made: Examples, at: Ints, ranked: CandidateLists | None
) -> tuple[str, ...]:
    """What the reader of a protocol's figures must know, as sentences for the log.

    Args:
        run: The options.
        split: The events.
        made: Queries and cases.
        at: (N,) events of the cases that are ranked at last.
        ranked: Their lists, where it is not the whole catalog.
    """
    part = "test" if run.evaluation.test else "validation"
    available = _count_available(run, split)
    said = _describe_weights(run, split)
    said += _describe_monitor(run, made)
    if _has_training(run):
        said = (*made.notes, *made.describe_cut(run.data.queries), *said)
    if run.architecture.trains:
        text = run.architecture.reads_user_texts
        said += describe_unpredictable(
            made.predictable,
            at,
            part,
            "an empty text is read" if text else "popularity answers them",
        )
    if run.evaluation.protocol == "catalog":
        said += _describe_repeats(run, split, made.items, at, part)
    if ranked is not None and run.evaluation.protocol == "candidates":
        said += (*_describe_misses(run, ranked, part), *_describe_short_lists(ranked, part))
    if available:
        said += (
            f"availability: {available['bounded']} items have a window, and a case is ranked among "
            f"what can be had at its time; {available['targets_outside']} of "
            f"{available['targets']} {part} targets lie outside of their own window and are ranked "
            "all the same.",
        )
    if run.evaluation.protocol == "sampled":
        return (CAUTION.format(n=run.evaluation.sampled_negatives), *said)
    if run.evaluation.protocol == "impressions":
        found = count_impressions(split, get_final_role(run))
        return (
            *said,
            f"impressions: of {found.impressions} in {part}, {found.without_positive} without a "
            f"click and {found.without_negative} without anything else are left out.",
        )
    return said


def _describe_monitor(run: RunConfig, made: Examples) -> tuple[str, ...]:
    """Which cases decide alone, where the mean of warm and cold ones was asked for."""
    options = run.evaluation
    if not options.monitor.startswith(f"{BALANCED}/"):
        return ()
    cold, warm = _count_validation_cases(run, made)
    if cold >= FEWEST and warm >= FEWEST:
        return ()
    few = describe_balance(cold, warm)
    return (f"evaluation.monitor={options.monitor}: {few[0]}, and {few[1]} decide.",)


def _count_validation_cases(run: RunConfig, made: Examples) -> tuple[int, int]:
    """Cold and warm cases of the validation, where each is one held-out event."""
    at = made.select_cases(VAL, run.evaluation.max_cases, run.data.sample_seed, new=True)
    cold = int((made.count_train_items()[made.split.item[at]] == 0).sum())
    return cold, len(at) - cold


def check_monitored_cases(run: RunConfig, made: Examples) -> None:
    """Refuses to decide by cold (or warm) cases where validation has none.

    Args:
        run: The options.
        made: Queries and cases.

    Raises:
        ConfigError: `evaluation.monitor` has no value.
    """
    options, (part, _, metric) = run.evaluation, run.evaluation.monitor.partition("/")
    if part not in ("cold", "warm") or options.protocol in ("labels", "impressions"):
        return
    cold, warm = _count_validation_cases(run, made)
    if (cold if part == "cold" else warm) == 0:
        raise ConfigError(
            f"evaluation.monitor={options.monitor} has no value: of {cold + warm} validation cases "
            f"none is {part}; set evaluation.monitor={metric}."
        )


def _describe_repeats(
    run: RunConfig, split: Split, items: int, at: Ints, part: str
) -> tuple[str, ...]:
    """How many targets were had before: the mask of the history hides them, or they are apart."""
    apart = run.evaluation.repeated == "apart"
    count = int(find_repeats(split, items)[at].sum())
    if not count or not (apart or run.evaluation.mask_history):
        return ()
    if apart:
        return (
            f"repeated: {count} of {len(at)} {part} targets were in the user's history already; "
            "they are ranked with all that the user has had, and in no metric but those named "
            "repeated/ (evaluation.repeated=apart).",
        )
    return (
        f"unreachable: {count} of {len(at)} {part} targets were in the user's history already, and "
        "with evaluation.mask_history=true no method can reach them.",
    )


def _describe_misses(run: RunConfig, ranked: CandidateLists, part: str) -> tuple[str, ...]:
    """How far lists of a finished run let any order of them come."""
    if ranked.missed is None:
        return ()
    count, cases = int((ranked.missed >= 0).sum()), len(ranked.missed)
    return (
        f"candidates: the best {run.evaluation.candidates} of {run.evaluation.candidates_from}; of "
        f"{cases} {part} cases {count} lack their target and count as misses: "
        f"{100 * (1 - count / max(1, cases)):.2f} % is the most that any order of the lists "
        "reaches.",
    )


def _describe_short_lists(ranked: CandidateLists, part: str) -> tuple[str, ...]:
    """How many lists have fewer candidates than was asked for."""
    sizes = (ranked.candidates >= 0).sum(1)
    full = ranked.candidates.shape[1]
    short = int((sizes < full).sum())
    if not short:
        return ()
    return (
        f"candidates: {short} of {len(sizes)} {part} lists have fewer than {full} items (down to "
        f"{int(sizes.min())}), as nothing else is left that their users have not had and can have.",
    )


def _has_training(run: RunConfig) -> bool:
    """Whether a step of training is made."""
    return run.architecture.trains and run.trainer.max_steps != 0


def _describe_weights(run: RunConfig, split: Split) -> tuple[str, ...]:
    """What event weights do, where they differ in training."""
    own = split.weight[split.role == TRAIN]
    if not len(own) or own.min() == own.max():
        return ()
    others = "every event counts once in histories, popularity and the other baselines, and logq"
    if not _has_training(run):
        return (f"event weights: {others}; they weigh in the losses of what trains.",)
    does = "a query's loss counts as its event weighs"
    if run.objective is not None and run.objective.predicts_weights:
        name = get_choice_name(run.objective)
        does = f"under objective {name} a weight is what the score is to be"
    return (f"event weights: {does}; {others}.",)


def list_baselines(options: EvaluationOptions) -> tuple[str, ...]:
    """Names of the baselines that stand beside a run."""
    if options.protocol == "catalog":
        return FLOORS
    if options.candidates_from is not None:  # no target is put in, which its rarity could tell
        return (*FLOORS, RETRIEVER, CHANCE)
    rarest = (REVERSED,) if options.protocol in ("candidates", "sampled") else ()
    return (*FLOORS, *rarest, CHANCE)


def describe_rarity_bias(found: Mapping[str, Mapping[str, float]], metric: str) -> str | None:
    """A caution where items in reverse order of popularity beat the floors that want something.

    A target that is put among proposed items is often one of the rarest, and among items drawn by
    popularity one that training never shows is the rarest: a model that has learned no more than
    to rank what is rare first does well on such lists, and serves no user.

    Args:
        found: Test metrics of the baselines.
        metric: The one to judge by.
    """
    rare = found.get(REVERSED, {}).get(metric)
    if rare is None:
        return None
    best = max(value[metric] for name, value in found.items() if name in FLOORS)
    if not rare > best:  # nor where either has no value
        return None
    return (
        f"caution: on these lists the rarest items first reach {100 * rare:.1f} % {metric}, "
        f"popularity and tfidf {100 * best:.1f} % at best: the lists tell many targets by their "
        "making. Read figures beside this floor, for warm targets and for those that were not put "
        "in, or rank the whole catalog (evaluation.protocol=catalog)."
    )


def _count_available(run: RunConfig, split: Split) -> dict[str, int]:
    """How availability narrows what is ranked; empty where it does not.

    Returns:
        `bounded`: items with a window; `targets`: cases that are ranked (test, or validation where
        the run does not test); `targets_outside`: those whose target cannot be had at their time.
    """
    options = run.evaluation
    # Labelled events and impressions were shown, whatever a table of items says.
    if split.windows is None or options.protocol in ("labels", "impressions"):
        return {}
    held = split.list_cases(get_final_role(run))
    cases = sample(held, options.max_cases, run.data.sample_seed)
    outside = split.windows.is_unavailable(cases, split.item[cases].astype(np.int64))
    return {
        "bounded": split.windows.bounded,
        "targets": len(cases),
        "targets_outside": int(outside.sum()),
    }


def describe_protocol(run: RunConfig, split: Split) -> dict[str, object]:
    """What a result says of its protocol, apart from what was ranked by it."""
    options = run.evaluation
    if options.protocol == "impressions":
        return {"left_out": count_impressions(split, get_final_role(run))._asdict()}
    available = _count_available(run, split)
    said: dict[str, object] = {"availability": available} if available else {}
    if options.hit_by is not None:
        said |= {"hit_by": options.hit_by}
    if options.repeated == "apart":
        said |= {"repeated": "apart"}
    if options.protocol == "sampled":
        said |= {"negatives": options.sampled_negatives, "sampling": options.sampled_by}
    return said
