"""Writes a finished run as a bundle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import save_file
from torch import Tensor

from recsys.assembly.assembled import Assembly
from recsys.config.choices import import_choice
from recsys.config.compose import RunConfig, make_node
from recsys.config.yaml_file import format_yaml
from recsys.data.batches.examples import Examples
from recsys.data.context import ContextFeatures, make_context_features
from recsys.data.moments import MOMENT
from recsys.data.tables import Tables
from recsys.errors import DataError
from recsys.recommender.base import Recommender
from recsys.recommender.components import TextComponents, TrainingComponents
from recsys.recommender.parameters import ENCODERS, TrainableModule
from recsys.runs.result_file import replace_nan
from recsys.runtime.files import CONFIG, FIT, open_atomic_folder
from recsys.trained.bundle import manifest
from recsys.trained.bundle.manifest import Manifest
from recsys.trained.bundle.write_texts import (
    can_fold,
    save_array,
    write_encoder,
    write_text_form,
)
from recsys.trained.exports.source import ExportSource


@dataclass(frozen=True)
class _Content:
    """What is written of a run, or of a member of an ensemble.

    Attributes:
        run: Its configuration.
        folder: Where its fit lies.
        recommender: With all that it has learned.
        tables: The data.
        examples: Queries, and what users had.
        context: What may be said of a query.
        encoding: How texts are read, or None.
    """

    run: RunConfig
    folder: Path
    recommender: Recommender
    tables: Tables
    examples: Examples
    context: ContextFeatures
    encoding: TextComponents | None


def write_bundle(run: ExportSource, folder: str | Path, users: bool = True) -> Path:
    """Writes a run as a folder that serves without the training data.

    Args:
        run: The run; its data is read for it once more.
        folder: The folder to make; a bundle that stands there is replaced.
        users: Whether what users had is written, so that they can be asked for by id.

    Returns:
        The folder.

    Raises:
        ConfigError: The run cannot be put into a bundle, or its data has changed since.
        DataError: The folder holds something else, or the disk is full.
    """
    target = Path(folder)
    if target.exists() and not manifest.is_bundle(target) and any(target.iterdir()):
        raise DataError(f"{target} holds something else than a bundle; choose another folder.")
    with open_atomic_folder(target, replace=True) as fresh:
        fill_bundle(run, fresh, users)
    return target


def fill_bundle(run: ExportSource, folder: Path, users: bool = True) -> list[str]:
    """Writes a run as a bundle into an empty folder.

    Args:
        run: The run.
        folder: The folder.
        users: Whether what users had is written.

    Returns:
        A sentence on what was written.

    Raises:
        ConfigError: The run cannot be put into a bundle, or its data has changed since.
    """
    made = run.assemble()
    for where, content in _list_contents(run, made):
        _write_content(folder / where, content, users)
    about = {
        "metrics": replace_nan(dict(run.metrics)),
        "fingerprint": made.fingerprint,
        "versions": run.result.get("versions", {}),
    }
    described = Manifest.describe(folder, run.name, about)
    (folder / manifest.MANIFEST).write_text(described.format(), encoding="utf-8")
    size = sum(each.bytes for each in described.files.values())
    return [f"bundle: {len(described.files)} files, {size / 1e6:.1f} MB, each with its checksum"]


def write_plain_bundle(
    fresh: Path,
    folder: Path,
    run: RunConfig,
    made: Assembly,
    catalog: Tensor,
    about: Mapping[str, Any],
    texts: bool,
) -> bool:
    """Writes the part of a bundle that answers without the run's own model.

    Args:
        fresh: The folder to make.
        folder: Of the run.
        run: Its configuration.
        made: Its model; with `texts` it keeps what is folded into its encoder.
        catalog: (I, ...) what `index_catalog` gave.
        about: What the manifest is to say.
        texts: Whether texts are to be answered too.

    Returns:
        Whether it answers what it is to.
    """
    content = _make_content(run, folder, made)
    fresh.mkdir()
    encoding = made.encoding if texts else None
    scored = write_text_form(fresh, run.encoder, made.recommender, encoding, catalog)
    if texts and not scored:
        return False
    _write_answers(fresh, content, True, catalog)
    if encoding is not None:
        write_encoder(fresh / manifest.ENCODER, run, encoding, True)
    text = Manifest.describe(fresh, folder.name, about).format()
    (fresh / manifest.MANIFEST).write_text(text, encoding="utf-8")
    return True


def _make_content(run: RunConfig, folder: Path, made: Assembly) -> _Content:
    return _Content(
        run,
        folder,
        made.recommender,
        made.tables,
        made.examples,
        made.context_features,
        made.encoding,
    )


def _list_contents(run: ExportSource, made: Assembly) -> Iterator[tuple[str, _Content]]:
    """The run and the members that it combines, each with its place in the bundle."""
    yield ".", _make_content(run.config, run.folder, made)
    members = made.recommender.parts.members
    for number, member in enumerate(members):
        config, recommender = made.sources[number].config, member.recommender
        assert isinstance(recommender, Recommender), "a run is a recommender"
        named = config.architecture.reads_context, (config.data.event_column,)
        yield (
            f"{manifest.MEMBERS}/{number}",
            _Content(
                config,
                made.sources[number].folder,
                recommender,
                made.tables,
                member.examples,
                make_context_features(made.tables, member.examples.split, *named),
                member.encoding,
            ),
        )


def _write_content(folder: Path, content: _Content, users: bool) -> None:
    """Writes the files of a run, or of a member, into a folder that nobody sees yet."""
    folder.mkdir(parents=True, exist_ok=True)
    recommender, parts = content.recommender, content.recommender.parts
    recommender.eval().cpu()
    # Before anything is folded into the encoder: the same numbers to the last bit.
    architecture = content.run.architecture
    reads = architecture.trains and architecture.reads_item_vectors
    catalog = recommender.index_catalog() if reads else None
    _write_answers(folder, content, users, catalog)
    if not content.context.values:
        write_text_form(folder, content.run.encoder, recommender, content.encoding, catalog)
    if parts.item_vectors is not None:
        save_array(folder / manifest.VECTORS, parts.item_vectors)
    if isinstance(parts, TrainingComponents):
        save_array(folder / manifest.TRAIN_COUNTS, parts.train_counts)
        if parts.tags is not None:
            save_array(folder / manifest.TAGS, parts.tags)
    if (content.folder / FIT).is_file():
        shutil.copyfile(content.folder / FIT, folder / FIT)
    run = _write_models(folder, content)
    node = {**make_node(run), "output": Path(run.output).name}
    (folder / CONFIG).write_text(format_yaml(_drop_paths(node)), encoding="utf-8")


def _drop_paths(value: Any) -> Any:  # noqa: ANN401 - a tree of plain values
    """Values of a configuration, of files and folders of this machine the name alone."""
    if isinstance(value, dict):
        return {key: _drop_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_drop_paths(inner) for inner in value]
    if isinstance(value, str) and os.sep in value:
        with suppress(OSError, RuntimeError):  # a text too long for a name; no such user
            if Path(value).expanduser().exists():
                return Path(value).name
    return value


def _write_answers(folder: Path, content: _Content, users: bool, catalog: Tensor | None) -> None:
    """Writes all but models: items, users, what was computed of them."""
    if catalog is not None:
        save_array(folder / manifest.CATALOG, catalog)
    for name, value in content.recommender.make_serving_state().items():
        save_array(folder / manifest.STATE / f"{name}.npy", value)
    _write_plain_form(folder, content)
    save_array(folder / manifest.COUNTS, content.recommender.parts.counts)
    _write_tables(folder, content, users)


def _write_plain_form(folder: Path, content: _Content) -> None:
    """Writes how histories are scored by arrays alone, where that can be."""
    form = content.recommender.make_plain_form()
    if form is None or content.context.values:
        return
    about = {"kind": form.kind, "numbers": dict(form.numbers)}
    (folder / manifest.PLAIN).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    for name, values in form.arrays.items():
        save_array(folder / manifest.PLAIN_ARRAYS / f"{name}.npy", values)


def _write_tables(folder: Path, content: _Content, users: bool) -> None:
    """Writes items, what may be said of a query, and what users had where that is asked for."""
    content.tables.items.write_parquet(folder / manifest.ITEMS)
    context = content.context
    about = {
        "max_history": content.examples.max_history,
        "context": {name: list(of) for name, of in context.values.items()},
        "clock": sorted(context.clock),
    }
    (folder / manifest.QUERIES).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    if not users:
        return
    known = content.tables.users.select("user", pl.col("text"))
    if context.moments is not None:
        now = [context.moments.texts[code] for code in context.moments.now.tolist()]
        known = known.with_columns(pl.Series(MOMENT, now, dtype=pl.String))
    known.write_parquet(folder / manifest.USERS)
    split = content.examples.split
    arrays = {"offsets": split.offsets, "items": split.item, "labels": split.label}
    for name, array in arrays.items():
        save_array(folder / manifest.HISTORY / f"{name}.npy", torch.from_numpy(array))


def _write_models(folder: Path, content: _Content) -> RunConfig:
    """Writes the encoder and what trained beside it.

    Returns:
        The configuration by which they are read.
    """
    run, recommender, encoding = content.run, content.recommender, content.encoding
    augment = replace(run.data.augment, drop_words=0.0, drop_fields=0.0)
    run = replace(run, data=replace(run.data, augment=augment))
    trained = {}
    if isinstance(recommender, TrainableModule):
        trained = recommender.get_saved_parameters()
    if encoding is not None:
        folds = can_fold(recommender, encoding)
        if folds and run.architecture.trains:
            trained = {k: p for k, p in trained.items() if not k.startswith(ENCODERS)}
            run = replace(run, tuning=import_choice("tuning", "frozen")())
        write_encoder(folder / manifest.ENCODER, content.run, encoding, folds)
        own = replace(run.encoder, model=manifest.ENCODER, revision=None, sha256=None, cache=False)
        run = replace(run, encoder=replace(own, dtype="fp32", quantize="none"))
    if trained:
        state = {k: p.detach().cpu().contiguous() for k, p in trained.items()}
        save_file(state, folder / manifest.WEIGHTS)
    return run
