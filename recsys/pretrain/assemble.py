"""The only assembler of a pretraining: its configuration in, data, encoder and task out."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import cast

import torch

from recsys.assembly.build import bind_options
from recsys.assembly.encoding import build_catalog, compute_key, count_kept, load_tuned
from recsys.config.choices import get_choice_name
from recsys.config.pretraining import PretrainConfig
from recsys.config.schema import DataOptions
from recsys.data.augmentation.words import build_word_numbers
from recsys.data.batches.examples import Examples
from recsys.data.prepare import prepare_data
from recsys.data.splits.split import Split
from recsys.data.tables import Tables, compute_fingerprint
from recsys.data.training_events import Interactions
from recsys.encoders.pretrained.load import PretrainedEncoder
from recsys.encoders.pretrained.source import resolve_source
from recsys.encoders.pretrained.tokenizer import check_vocabulary
from recsys.errors import ConfigError
from recsys.pretrain.checks import check_pretraining
from recsys.pretrain.datamodule import TextLoaders
from recsys.pretrain.module import PretrainingModule
from recsys.pretrain.tasks.base import Task, TaskComponents
from recsys.runtime.progress import print_status
from recsys.runtime.store import Store
from recsys.types import Tuned


@dataclass(frozen=True)
class PretrainingAssembly:
    """Everything that a pretraining needs.

    Attributes:
        tables: The data set, after limits.
        split: Its events and their roles.
        fingerprint: SHA-256 of the tables' contents.
        loaded: The encoder, and what was read of its folder.
        tuned: What the tuning method did to it.
        model: What trains.
        data: Its batches.
    """

    tables: Tables
    split: Split
    fingerprint: str
    loaded: PretrainedEncoder
    tuned: Tuned
    model: PretrainingModule
    data: TextLoaders


def assemble(run: PretrainConfig) -> PretrainingAssembly:
    """Builds everything; seeds torch, so that added weights start the same.

    Args:
        run: Its configuration.

    Raises:
        ConfigError: A combination, an encoder or an option is impossible.
        DataError: The data cannot be used.
    """
    check_pretraining(run)
    resolve_source(run.encoder.model, run.encoder.revision)
    torch.manual_seed(run.seed)
    loaded, tuned = load_tuned(run.encoder, run.regularization.dropout, run.tuning)
    check_foldable(loaded, tuned, get_choice_name(run.tuning))
    print_status(f"reading the data: {get_choice_name(run.data.source)}")
    tables, split = prepare_data(run.data)
    if loaded.line:
        print(loaded.line, file=sys.stderr)
    prompt = loaded.following.item_prompt
    texts = tables.items["text"].to_list()
    catalog = build_catalog(loaded, texts, prompt, run.data.max_tokens)
    check_vocabulary(catalog, "item", loaded.tokenizer, True)
    whole = [prompt + text for text in texts]
    kept = count_kept(loaded, prompt, run.data.max_tokens)
    how = (loaded.find_spans, compute_key(loaded), Store(), kept)
    parts = TaskComponents(
        catalog=catalog,
        number_words=lambda: build_word_numbers(whole, len(prompt), *how),
        prompt=len(loaded.tokenize([prompt])[0]) if prompt else 0,
        encoder=loaded.encoder,
        tokenizer=loaded.tokenizer,
        files=loaded.files,
        events=_find_events(run.data, split, len(texts)) if run.pretraining.reads_events else None,
    )
    torch.manual_seed(run.seed)  # now, so that heads do not depend on what was drawn before
    module = importlib.import_module(type(run.pretraining).__module__)
    task = cast(Task, module.Task(parts, run.pretraining))
    if run.encoder.compile == "on":
        loaded.encoder.compile_layers()
    model = PretrainingModule(
        loaded.encoder,
        tuned,
        task,
        bind_options(run.optimizer, run.regularization),
        run.regularization.l2_sp,
        run.optimizer.schedule_steps,
    )
    data = TextLoaders(
        task,
        run.pretraining.val_share,
        run.trainer.batch_size,
        run.seed,
        run.data.sample_seed,
    )
    return PretrainingAssembly(
        tables, split, compute_fingerprint(tables), loaded, tuned, model, data
    )


def check_foldable(loaded: PretrainedEncoder, tuned: Tuned, method: str) -> None:
    """Refuses what a tuning method adds for good: no folder of transformers can hold it.

    Raises:
        ConfigError: It cannot be folded into the weights.
    """
    if tuned.added and tuned.merge is None:
        raise ConfigError(
            f"tuning={method} adds parameters to {type(loaded.encoder.model).__name__} that cannot "
            "be folded into its weights, so that no encoder folder can hold what was pretrained; "
            "set tuning to lora, full, top_layers or bitfit."
        )


def _find_events(data: DataOptions, split: Split, items: int) -> Interactions:
    """The positive events of training, of the users that train in a run with these options."""
    examples = Examples(
        split, items, data.max_history, train_users=data.train_users, seed=data.sample_seed
    )
    return Interactions.from_split(split, examples.get_train_pairs()[0])
