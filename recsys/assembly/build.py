"""The only assembler: a run's configuration in, data, recommender and floors out."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from recsys.assembly import protocols
from recsys.assembly.assembled import Assembly, StoredRun
from recsys.assembly.augmentation import make_history_augmentation, make_history_masks
from recsys.assembly.candidates import Retriever, check_size, make_retriever
from recsys.assembly.checks import check_columns, check_pairs, check_weights
from recsys.assembly.device import select_device
from recsys.assembly.negatives import get_negative_spec, make_sampler
from recsys.assembly.stored_runs import (
    DataIdentity,
    assemble_run,
    check_same_lists,
    name_runs,
    open_retriever,
    open_sources,
)
from recsys.assembly.vectors.items import (
    compute_item_vectors,
    load_item_vectors,
    make_zero_shot_run,
)
from recsys.config.compose import AXES, RunConfig, get_choice_name
from recsys.config.groups import OptimizerOptions, RegularizationOptions
from recsys.config.schema import ENCODER, ObjectiveConfig
from recsys.data.augmentation.histories import HistoryAugmentation
from recsys.data.batches import query_texts
from recsys.data.batches.batch_loaders import BatchLoaders
from recsys.data.batches.catalog import Tokenize
from recsys.data.batches.examples import Examples
from recsys.data.batches.negatives import NegativeSampler
from recsys.data.batches.rows import CandidateLists
from recsys.data.context import ContextFeatures, make_context_features
from recsys.data.moments import make_moment_texts
from recsys.data.prepare import PreparedData
from recsys.data.revision import Revise, RevisedCatalog
from recsys.data.splits.split import VAL, Split
from recsys.data.tables import Tables, compute_fingerprint
from recsys.data.tags import encode_tags
from recsys.data.training_events import Interactions, TrainingQueries
from recsys.encoders.pretrained.source import resolve_source
from recsys.errors import ConfigError
from recsys.losses import make_objective_context
from recsys.metrics.names import list_cutoffs
from recsys.models.popularity import ListOrder
from recsys.recommender.base import Recommender
from recsys.recommender.cold_distillation import ColdDistillation
from recsys.recommender.components import (
    Components,
    Member,
    TextComponents,
    TrainingComponents,
)
from recsys.recommender.fitted import FittedRecommender
from recsys.recommender.optim import Optimise, bind_optimiser
from recsys.runtime.progress import print_status


def assemble(
    run: RunConfig,
    check: Callable[[Tables, str], None] | None = None,
    prepared: PreparedData | None = None,
    revise: Revise | None = None,
) -> Assembly:
    """Builds everything that a run needs; seeds torch, so that heads start the same.

    Args:
        run: Its configuration.
        check: Sees tables and the fingerprint of the data before anything is encoded, and may
            refuse them.
        prepared: The data of a run that builds on this one: where it is the same, it is not read
            and held a second time.
        revise: May make other items of those that were read, given the fingerprint; such a model
            recommends, and neither trains nor is it evaluated. None: they are as they were read.

    Raises:
        ConfigError: A combination, an encoder or an option is impossible.
        DataError: The data cannot be used.
    """
    if revise is not None:  # items may be gone whose events are still there
        source = run.data.source.leave_out_unknown()
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, source=source))
    check_pairs(run)
    reads = run.architecture.reads_tokens or run.architecture.vectors_from == ENCODER
    if reads:  # a large data set need not be read for a mistyped folder
        resolve_source(run.encoder.model, run.encoder.revision)
    if run.architecture.prompt is not None:
        from recsys.assembly.prompts import check_language_model

        check_language_model(run)
    if prepared is None or not prepared.fits(run.data):
        print_status(f"reading the data: {get_choice_name(run.data.source)}")
        prepared = PreparedData.prepare(run.data)
    tables, split, key = prepared.tables, prepared.split, compute_fingerprint(prepared.tables)
    revised = None if revise is None else revise(tables, key)
    tables = tables if revised is None else revised.tables
    check_columns(run, tables)
    context = make_context_features(
        tables, split, run.architecture.reads_context, (run.data.event_column,)
    )
    moments = make_moment_texts(run.data, tables, split)
    context = dataclasses.replace(context, moments=moments)
    worded = query_texts.find_events_with_text(run, tables, split, context)
    examples = protocols.make_examples(run, split, len(tables.items), worded, context)
    parts = _make_components(run, tables, split, examples, context, revised)
    if check is not None:
        check(tables, key)
    identity = DataIdentity.compute(run, split, key)
    if revised is not None and revised.digests is not None:
        identity = DataIdentity(*revised.digests, identity.positive_from)
    sources = open_sources(run, identity)
    # Before an encoder is loaded and texts are encoded, which takes far longer than to say no.
    retriever = None if revised else open_retriever(run, identity)
    if not revised and run.evaluation.protocol == "candidates":
        check_size(run.evaluation.candidates, examples.items)
    members = _load_members(run, sources, partial(assemble, prepared=prepared, revise=revise))
    sampler = make_sampler(run, examples, key, lambda: make_baseline("tfidf", parts), assemble)
    # Now, so that weights do not depend on whether something was mined or read from the store.
    torch.manual_seed(run.seed)
    recommender, encoding, tokenize = _make_recommender(
        run, parts, tables, split, examples, context, sources, members, revise
    )
    lists = {}
    if not revised:
        build = partial(assemble, prepared=prepared)
        proposes = None if retriever is None else make_retriever(run, retriever, build)
        lists = _make_lists(run, parts, examples, proposes, {"data": key, "split": split.name})
    if members:
        if not revised:
            check_same_lists(sources, split, lists)
        # Every member is to have what it reads, also of someone who is no user of the data.
        longest = max(member.examples.max_history for member in members)
        examples = examples.lengthen_history(longest)
    augmentation = make_history_augmentation(run, examples, parts.texts)
    datamodule = _make_datamodule(run, examples, sampler, augmentation, encoding, lists)
    _check_validation_cases(run, recommender, examples, datamodule)
    part = protocols.get_final_role(run)
    notes = protocols.describe_caveats(
        run, split, examples, datamodule.list_case_events(part), lists.get(part)
    )
    split = dataclasses.replace(split, notes=(*split.notes, *notes))
    return Assembly(
        tables,
        split,
        examples,
        datamodule,
        recommender,
        parts,
        encoding,
        key,
        tokenize,
        context,
        sources,
        retriever,
    )


def _make_lists(
    run: RunConfig,
    parts: Components,
    examples: Examples,
    retriever: Retriever | None,
    key: Mapping[str, object],
) -> dict[int, CandidateLists]:
    """What each part of the cases ranks, where that is not the catalog.

    Args:
        run: Its options.
        parts: What baselines are made of, which propose candidates.
        examples: The cases.
        retriever: The finished run that proposes in their place; None: they do.
        key: What names the data and its split in the store.
    """
    # Of histories, whatever a run reads: every architecture ranks the same lists.
    plain = dataclasses.replace(parts, written=None)
    return protocols.make_lists(
        run,
        examples,
        lambda: [make_baseline(name, plain) for name in protocols.FLOORS],
        retriever,
        key,
    )


def _check_validation_cases(
    run: RunConfig, recommender: Recommender, examples: Examples, datamodule: BatchLoaders
) -> None:
    """Refuses validation cases that cannot decide what they are to, before there is a folder.

    Raises:
        ConfigError: There are too few, or none that the monitor looks at.
    """
    fits = isinstance(recommender, FittedRecommender) and recommender.needs_fit
    if run.architecture.trains or fits or not run.evaluation.test:
        protocols.check_monitored_cases(run, examples)
    if isinstance(recommender, FittedRecommender) and recommender.needs_fit:
        recommender.check_cases(len(datamodule.list_case_events(VAL)))


def _make_components(
    run: RunConfig,
    tables: Tables,
    split: Split,
    examples: Examples,
    context: ContextFeatures,
    revised: RevisedCatalog | None,
) -> Components:
    """What every recommender over this data has, baselines beside a run included."""
    return Components(
        texts=tuple(tables.items["text"].to_list()),
        counts=torch.from_numpy(examples.count_train_items()),
        ranking=run.evaluation.protocol,
        ks=list_cutoffs(run.evaluation),
        mask_history=run.evaluation.mask_history,
        max_history=run.data.max_history,
        label=run.evaluation.label,
        windows=split.windows,
        equal=protocols.make_equal_items(run, tables),
        apart=run.evaluation.repeated == "apart",
        written=query_texts.make_plain_user_texts(run, tables, context),
        origin=None if revised is None else torch.from_numpy(revised.origin),
        fitted=None if revised is None else revised.before,
    )


def _make_recommender(
    run: RunConfig,
    parts: Components,
    tables: Tables,
    split: Split,
    examples: Examples,
    context: ContextFeatures,
    sources: Sequence[StoredRun] = (),
    members: tuple[Member, ...] = (),
    revise: Revise | None = None,
) -> tuple[Recommender, TextComponents | None, Tokenize | None]:
    """The run's own recommender, and what it reads texts by, where it reads any.

    Raises:
        ConfigError: The encoder, its tuning or an option of the architecture is impossible.
    """
    encoding, tokenize = None, None
    if run.objective is not None:
        check_weights(run.objective, examples)
        if run.architecture.reads_tokens:
            from recsys.assembly.encoding import load_encoding

            # A prompt is cut to the longest item of the fit, whatever came later.
            known = None if parts.fitted is None else parts.fitted["text"].to_list()
            known = None if run.architecture.prompt is None else known
            encoding, tokenize = load_encoding(run, parts.texts, tables, context, known)
        own: Components = _make_training_components(
            run, run.objective, parts, encoding, tables, context, examples
        )
    else:
        vectors, reader = None, None
        if run.architecture.vectors_from == ENCODER:
            reader, encoding, tokenize = _make_recommender(
                make_zero_shot_run(run), parts, tables, split, examples, context
            )
            if run.architecture.item_vectors_from == ENCODER:
                vectors = compute_item_vectors(reader, select_device(run) or torch.device("cpu"))
            reader.cpu()  # where a text is asked for
        own = dataclasses.replace(
            parts,
            interactions=Interactions.from_split(split, examples.get_train_pairs()[0]),
            read_text=None if reader is None else reader.make_text_query,
            item_vectors=_load_vectors(run, sources, vectors, revise),
            **_read_training_queries(run, examples, sources, reader, revise),
            members=members,
        )
    module = importlib.import_module(type(run.architecture).__module__)
    recommender = cast(Recommender, module.Model(own, run.architecture))
    if run.architecture.trains:
        _prepare_training(run, recommender)
    return recommender, encoding, tokenize


def _load_vectors(
    run: RunConfig,
    sources: Sequence[StoredRun],
    vectors: Tensor | None,
    revise: Revise | None,
) -> Tensor | None:
    """(I, D) the item vectors that the architecture asks for, or None.

    Args:
        run: The configuration.
        sources: What `open_sources` gave.
        vectors: (I, D) those of the encoder.
        revise: As in `assemble`.
    """
    if run.architecture.item_vectors_from in (None, ENCODER):
        return vectors
    device = select_device(run) or torch.device("cpu")
    if revise is not None:  # of other items than the store has
        made = assemble_run(sources[0], partial(assemble, revise=revise))
        return compute_item_vectors(made.recommender, device)
    return load_item_vectors(sources[0], assemble, device)


def _read_training_queries(
    run: RunConfig,
    examples: Examples,
    sources: Sequence[StoredRun],
    reader: Recommender | None,
    revise: Revise | None,
) -> dict[str, Any]:
    """What an architecture that asks for training queries has of them, by the name of its part.

    Args:
        run: The configuration.
        examples: Queries and cases.
        sources: What `open_sources` gave.
        reader: Two towers of the encoder, where that is to make them.
        revise: As in `assemble`.
    """
    if not run.architecture.reads_training_queries:
        return {}
    queries = TrainingQueries(examples)
    if run.architecture.query_vectors_from is None:
        return {"training_queries": queries}
    # It loads Lightning, which other baselines do without.
    from recsys.assembly.vectors.queries import make_encoder_reader, open_run_reader

    if reader is not None:
        made = make_encoder_reader(reader, run)
    else:
        made = open_run_reader(run, sources[0], partial(assemble, revise=revise))
    return {
        "training_queries": queries,
        "query_vectors": made.load_vectors(queries),
        "read_query": made.read,
    }


def _load_members(
    run: RunConfig, sources: Sequence[StoredRun], build: Callable[[RunConfig], Assembly]
) -> tuple[Member, ...]:
    """What scores for an ensemble, with all that it has learned."""
    if not run.architecture.member_runs:
        return ()
    members = []
    for name, stored in zip(name_runs(sources), sources, strict=True):
        made = assemble_run(stored, build)
        members.append(
            Member(name, str(stored.folder), made.recommender, made.examples, made.encoding)
        )
    return tuple(members)


def _prepare_training(run: RunConfig, recommender: Recommender) -> None:
    """Compiles the encoders of what trains, where that is asked for.

    Raises:
        ConfigError: Its model cannot train.
    """
    from recsys.encoders.encoder import Encoder
    from recsys.recommender.trainable import require_trainable

    modules = require_trainable(recommender).modules()
    if run.encoder.compile == "on":
        for encoder in [m for m in modules if isinstance(m, Encoder)]:
            encoder.compile_layers()


def _make_datamodule(
    run: RunConfig,
    examples: Examples,
    sampler: NegativeSampler,
    augmentation: HistoryAugmentation | None,
    encoding: TextComponents | None,
    lists: Mapping[int, CandidateLists],
) -> BatchLoaders:
    draws = get_negative_spec(run)
    sizes = costs = np.zeros(examples.items, dtype=np.int64)
    if encoding is not None:
        tokens = encoding.catalog.count_tokens(torch.arange(len(encoding.catalog)))
        sizes = np.asarray(tokens, dtype=np.int64)
        costs = np.asarray(encoding.encoder.compute_lengths(sizes.tolist()))
    return _get_loader_class(run)(
        examples,
        sizes,
        queries=run.data.queries,
        per_user=run.data.queries_per_user,
        negatives=draws.count,
        sampler=sampler,
        augmentation=augmentation,
        texts=None if encoding is None else encoding.training_texts,
        pool=examples.get_pool(draws.sampling),
        batch_size=run.trainer.batch_size,
        batch_tokens=run.trainer.batch_tokens if run.architecture.trains else None,
        costs=costs,
        eval_batch_size=run.evaluation.batch_size,
        seed=run.seed,
        lists=lists,
        max_cases=run.evaluation.max_cases,
        sample_seed=run.data.sample_seed,
        test=run.evaluation.test,
    )


def _get_loader_class(run: RunConfig) -> type[BatchLoaders]:
    """Loaders for a Trainer, or without: importing Lightning takes longer than a baseline."""
    if not run.architecture.trains:
        return BatchLoaders
    from recsys.training.datamodule import RecDataModule

    return RecDataModule


def _make_cold_distillation(strength: float, examples: Examples) -> ColdDistillation | None:
    """What draws scores of cold items to their start, where that is asked for.

    Raises:
        ConfigError: Training shows every item.
    """
    if not strength:
        return None
    shown = torch.from_numpy(examples.get_pool("uniform"))
    cold = torch.ones(examples.items, dtype=torch.bool).index_fill(0, shown, False)
    if not cold.any():
        raise ConfigError(
            f"regularization.cold_distillation={strength:g} is about items that training never "
            "shows, and it shows all of them; leave it out."
        )
    return ColdDistillation(strength, cold.nonzero()[:, 0])


def _make_training_components(
    run: RunConfig,
    objective: ObjectiveConfig,
    parts: Components,
    encoding: TextComponents | None,
    tables: Tables,
    context: ContextFeatures,
    examples: Examples,
) -> TrainingComponents:
    """What every architecture has, and what this one needs to train."""
    columns = run.architecture.reads_tags
    users, liked = (torch.from_numpy(x) for x in examples.get_train_pairs())
    targets = examples.count_targets(run.data.queries, run.data.queries_per_user)
    module = importlib.import_module(type(objective).__module__)
    return TrainingComponents(
        **vars(parts),
        encoding=encoding,
        tags=encode_tags(tables.items, columns, parts.fitted) if columns else None,
        context_sizes=context.sizes,
        masks=make_history_masks(run),
        train_counts=torch.bincount(liked, minlength=len(parts.texts)),
        around=make_objective_context(users, liked, len(parts.texts), torch.from_numpy(targets)),
        l2_sp=run.regularization.l2_sp,
        cold_distillation=_make_cold_distillation(run.regularization.cold_distillation, examples),
        schedule_steps=run.optimizer.schedule_steps,
        objective=module.Objective(**dataclasses.asdict(objective)),
        optimise=bind_options(run.optimizer, run.regularization),
    )


def bind_options(rates: OptimizerOptions, regularization: RegularizationOptions) -> Optimise:
    """Makes optimiser and schedule of a run's options."""
    return bind_optimiser(
        {
            "encoder": rates.lr if rates.encoder_lr is None else rates.encoder_lr,
            "tuned": rates.lr,
            "head": rates.lr if rates.head_lr is None else rates.head_lr,
            "table": rates.table_lr,
        },
        regularization.weight_decay,
        (rates.betas[0], rates.betas[1]),
        rates.warmup,
        rates.schedule,
        rates.kind,
    )


def make_baseline(name: str, parts: Components) -> Recommender:
    """A baseline over the same cases, with its default options but for what its name says.

    Where users are texts, tfidf reads those texts too.
    """
    if name == protocols.RETRIEVER:
        return ListOrder(parts)
    kind = protocols.KINDS.get(name)
    options = {} if kind is None else {"kind": kind}
    if name == "tfidf" and parts.written is not None:
        options = {"user": "text"}
    module = importlib.import_module(f"{AXES['architecture']}.{'popularity' if kind else name}")
    return cast(Recommender, module.Model(parts, module.Config(**options)))
