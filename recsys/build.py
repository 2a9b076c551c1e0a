"""The only assembler: a run's configuration in, data, recommender and floors out."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from recsys.config import AXES, Run, choice_name, nearest
from recsys.data.catalog import Catalog
from recsys.data.datamodule import RecDataModule
from recsys.data.examples import TRAIN, Examples
from recsys.data.splits import Split, make
from recsys.data.store import Store
from recsys.data.tables import Tables, check, fingerprint, limit
from recsys.encoders.load import load, load_tokenizer
from recsys.encoders.prefix import PrefixCache
from recsys.errors import ConfigError
from recsys.evaluation import names
from recsys.objective import Surroundings
from recsys.recommender import Parts, Recommender, optimiser

FLOORS = ("popularity", "tfidf")


@dataclass(frozen=True)
class Assembly:
    """Everything a command needs.

    Attributes:
        tables: The data set, after limits.
        split: Its events and their roles.
        examples: Queries and cases.
        datamodule: Loads batches.
        recommender: What trains and scores.
        parts: What floors are made of.
        fingerprint: SHA-256 of the tables' contents.
    """

    tables: Tables
    split: Split
    examples: Examples
    datamodule: RecDataModule
    recommender: Recommender
    parts: Parts
    fingerprint: str


def check_pairs(run: Run) -> None:
    """Refuses combinations that make no sense.

    Raises:
        ConfigError: The objective needs what the architecture cannot give, or what one run
            cannot do yet was asked for.
    """
    architecture, objective = run.architecture, run.objective
    known = names(run.evaluation.protocol, tuple(run.evaluation.k))
    if run.evaluation.monitor not in known:
        raise ConfigError(
            f"evaluation.monitor: '{run.evaluation.monitor}' is not a metric."
            f"{nearest(run.evaluation.monitor, known)}"
        )
    if run.trainer.devices != 1:
        raise ConfigError("trainer.devices: only 1 device is supported so far; set it to 1.")
    if not architecture.trains:
        return
    if objective.needs not in architecture.gives:
        raise ConfigError(
            f"objective {choice_name(objective)} needs {objective.needs}, and architecture "
            f"{choice_name(architecture)} gives {', '.join(sorted(architecture.gives))}."
        )
    if run.data.queries == "all" and objective.needs == "scores":
        raise ConfigError(
            "data.queries=all goes with objective in_batch; a sampled objective takes "
            "data.queries=random or last."
        )


def data(run: Run) -> tuple[Tables, Split]:
    """Loads, checks, limits and splits the tables.

    Raises:
        ConfigError: The split does not fit the data.
        DataError: A file, row or column cannot be used.
    """
    config = run.data.source
    module = importlib.import_module(type(config).__module__)
    tables = check(module.load(config), choice_name(config))
    if run.data.max_users is not None or run.data.max_items is not None:
        tables = limit(tables, run.data.max_users, run.data.max_items, run.seed)
    method = config.default_split if run.data.split == "default" else run.data.split
    split = make(
        tables,
        method,
        positive_from=run.data.positive_from,
        val_fraction=run.data.val_fraction,
        test_fraction=run.data.test_fraction,
    )
    return tables, split


def assemble(run: Run) -> Assembly:
    """Builds everything that a run needs; seeds torch, so that heads start the same.

    Raises:
        ConfigError: A combination, an encoder or an option is impossible.
        DataError: The data cannot be used.
    """
    check_pairs(run)
    tables, split = data(run)
    if run.architecture.trains and choice_name(run.objective) == "mse":
        trained = split.weight[split.role == TRAIN]
        if len(trained) and trained.min() == trained.max():
            raise ConfigError(
                "objective mse needs observed weights that differ, and all are "
                f"{trained[0]:g}; give the source a weight column or take another objective."
            )
    examples = Examples(split, len(tables.items), run.data.max_history)
    texts = tuple(tables.items["text"].to_list())
    counts = torch.from_numpy(examples.train_counts())
    parts = Parts(
        texts=texts,
        counts=counts,
        catalog=None,
        encoder=None,
        tuned=None,
        prefix=None,
        objective=None,
        around=None,
        optimise=None,
        ranking=run.evaluation.protocol,
        ks=tuple(run.evaluation.k),
        mask_history=run.evaluation.mask_history,
    )
    torch.manual_seed(run.seed)
    sizes = np.zeros(len(texts), dtype=np.int64)
    own = parts
    if run.architecture.trains:
        own, sizes = _trainable(run, parts, examples)
    module = importlib.import_module(type(run.architecture).__module__)
    recommender = cast(Recommender, module.Model(own, run.architecture))
    # What an objective does not ask for is not drawn.
    asked = dataclasses.asdict(run.objective) if run.architecture.trains else {}
    datamodule = RecDataModule(
        examples,
        sizes,
        queries=run.data.queries,
        per_user=run.data.queries_per_user,
        negatives=asked.get("negatives", 0),
        sampling=asked.get("sampling", "uniform"),
        batch_size=run.trainer.batch_size,
        eval_batch_size=run.evaluation.batch_size,
        seed=run.seed,
    )
    return Assembly(tables, split, examples, datamodule, recommender, parts, fingerprint(tables))


def _trainable(run: Run, parts: Parts, examples: Examples) -> tuple[Parts, Any]:
    """Adds encoder, tuning, tokens, objective and optimiser; also the token counts (I,)."""
    options = run.encoder
    tokenizer = load_tokenizer(options.model, options.revision)
    encoder = load(
        options.model,
        options.revision,
        options.sha256,
        pooling=options.pooling,
        max_length=options.max_length,
        chunk_tokens=options.chunk_tokens,
    )
    tuning = importlib.import_module(type(run.tuning).__module__)
    tuned = tuning.apply(encoder, run.tuning)

    def tokenize(texts: list[str]) -> list[list[int]]:
        return cast(list[list[int]], tokenizer(texts, add_special_tokens=False)["input_ids"])

    key = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    store = Store()
    catalog = Catalog.build(parts.texts, tokenize, key, store, run.data.max_tokens)
    prefix = None
    if options.cache and 0 < encoder.lowest_trained < encoder.depth:
        prefix = PrefixCache.build(encoder, catalog, store)
    users, items = examples.train_pairs()

    def unset(queries: Tensor, items: Tensor) -> Tensor:
        raise RuntimeError("an objective scored before the architecture gave its score")

    base = Surroundings.of(
        torch.from_numpy(users), torch.from_numpy(items), len(parts.texts), unset
    )

    def around(score: Callable[[Tensor, Tensor], Tensor]) -> Surroundings:
        return dataclasses.replace(base, score=score)

    objective = importlib.import_module(type(run.objective).__module__)
    rates = run.optimizer
    own = dataclasses.replace(
        parts,
        catalog=catalog,
        encoder=encoder,
        tuned=tuned,
        prefix=prefix,
        objective=objective.Objective(**dataclasses.asdict(run.objective)),
        around=around,
        optimise=optimiser(
            {
                "encoder": rates.lr if rates.encoder_lr is None else rates.encoder_lr,
                "tuned": rates.lr,
                "head": rates.lr if rates.head_lr is None else rates.head_lr,
            },
            run.regularization.weight_decay,
            (rates.betas[0], rates.betas[1]),
            rates.warmup,
            rates.schedule,
        ),
        l2_sp=run.regularization.l2_sp,
    )
    return own, np.asarray(catalog.sizes(torch.arange(len(catalog))), dtype=np.int64)


def floor(name: str, parts: Parts) -> Recommender:
    """A baseline over the same cases, with its default options."""
    module = importlib.import_module(f"{AXES['architecture']}.{name}")
    return cast(Recommender, module.Model(parts, module.Config()))
