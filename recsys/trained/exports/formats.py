"""The formats in which a finished run leaves, and the one function that writes any of them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from recsys.config.compose import get_choice_name
from recsys.errors import ConfigError, DataError, nearest
from recsys.runtime.files import open_atomic_folder
from recsys.trained.bundle.manifest import is_bundle
from recsys.trained.exports.hub import check_name, push_folder
from recsys.trained.exports.source import ExportSource, compares_tokens

_HERE = "recsys.trained.exports"


@dataclass(frozen=True)
class Format:
    """A way to leave.

    Attributes:
        help: What it is, for a user.
        home: Module and function that fill an empty folder with a run, and return sentences on
            what it holds; loaded when it is used.
        needs: Packages of the extra `export`, by the names that are imported.
        holds_any: Whether it takes a run of every architecture; the others are made of vectors.
        reads_texts: Whether it is what makes vectors of texts.
        holds_tokens: Whether it takes a run that compares the vectors of tokens.
        holds_users: Whether it holds what users had, which may be left out, and replaces an older
            folder of its kind.
    """

    help: str
    home: tuple[str, str]
    needs: tuple[str, ...] = ()
    holds_any: bool = False
    reads_texts: bool = False
    holds_tokens: bool = False
    holds_users: bool = False

    def write(self, run: ExportSource, folder: Path, users: bool) -> list[str]:
        """Fills an empty folder; sentences on what it holds."""
        module, name = self.home
        fill: Callable[..., list[str]] = getattr(importlib.import_module(module), name)
        return fill(run, folder, users) if self.holds_users else fill(run, folder)


FORMATS: Mapping[str, Format] = {
    "bundle": Format(
        "all that recommends without the training data, for recommend folder= and recsys.serve",
        ("recsys.trained.bundle.write", "fill_bundle"),
        holds_any=True,
        holds_users=True,
    ),
    "sentence_transformers": Format(
        "a folder for SentenceTransformer(...) of versions 5 and 6, and for AutoModel",
        (f"{_HERE}.sentence_folder", "write_sentence_folder"),
        reads_texts=True,
        holds_tokens=True,
    ),
    "vectors": Format(
        "item vectors with ids and titles: vectors.npy and vectors.parquet",
        (f"{_HERE}.vector_files", "write_vectors"),
    ),
    "faiss": Format(
        "a FAISS index over the item vectors: exact below 100,000 items, HNSW from there on",
        (f"{_HERE}.faiss_index", "write_faiss"),
        needs=("faiss",),
    ),
    "onnx": Format(
        "what makes vectors of texts as an ONNX graph, in fp32 and int8, with its tokenizer",
        (f"{_HERE}.onnx_graph", "write_onnx"),
        needs=("onnx", "onnxscript", "onnxruntime"),
        reads_texts=True,
    ),
    "card": Format(
        "the model card alone, which the others have beside their files",
        (f"{_HERE}.card", "write_card"),
        holds_any=True,
    ),
}


def export_run(
    run: ExportSource, folder: Path, format: str, push: str | None = None, users: bool = True
) -> list[str]:
    """Writes a run in a format, into a new folder that is there whole or not at all.

    A bundle takes the place of an older one.

    Args:
        run: The run.
        folder: The folder to make.
        format: A name of `FORMATS`.
        push: USER/NAME on a model hub, to which the folder is sent; None: nothing is sent.
        users: Whether a bundle holds what users had, so that they can be asked for by id.

    Returns:
        Sentences on what was written.

    Raises:
        ConfigError: The format is unknown or cannot hold such a run, its package is missing, or
            the data has changed.
        DataError: The folder is there already, or cannot be written.
        UnreachableError: The hub could not be reached; the folder stays.
    """
    if format not in FORMATS:
        raise ConfigError(f"format={format} is unknown.{nearest(format, FORMATS)}")
    chosen = FORMATS[format]
    _check_packages(format, chosen)
    if not (users or chosen.holds_users):
        raise ConfigError(f"users=false goes with format=bundle; format={format} holds no users.")
    if folder.exists() and not (chosen.holds_users and is_bundle(folder)):
        raise DataError(f"{folder} exists already; remove it, or choose another folder with to=.")
    _check_can_hold(run, format, chosen)
    if push is not None:
        check_name(push)
    with open_atomic_folder(folder, replace=chosen.holds_users) as aside:
        notes = chosen.write(run, aside, users)
        if not chosen.holds_any:
            from recsys.trained.exports.card import CARD, format_card

            (aside / CARD).write_text(format_card(run, format, notes), encoding="utf-8")
    return notes if push is None else [*notes, f"sent: {push_folder(folder, push)}"]


def _check_can_hold(run: ExportSource, format: str, chosen: Format) -> None:
    """Refuses a run that a format cannot hold, before its data is read.

    Raises:
        ConfigError: It cannot; the sentence says which format can.
    """
    of = run.config.architecture
    name = get_choice_name(of)
    has_vectors = of.trains and of.reads_item_vectors and "table" in of.gives
    if chosen.holds_tokens and compares_tokens(run):
        return
    if not (has_vectors or chosen.holds_any):
        whole = [f"format={other}" for other, about in FORMATS.items() if about.holds_any]
        raise ConfigError(
            f"architecture={name} has no vector for each item that a product would compare, and "
            f"format={format} is made of them; {' and '.join(whole)} go with any run, and so does "
            "python -m recsys.recommend."
        )
    if chosen.reads_texts and not of.reads_tokens:
        raise ConfigError(
            f"this run of architecture={name} reads no texts, and format={format} is what reads "
            "them; use format=vectors, which has the vector of each item."
        )


def _check_packages(format: str, chosen: Format) -> None:
    """Names the extra that a format needs, where it is not installed.

    Raises:
        ConfigError: It is not.
    """
    for name in chosen.needs:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"format={format} needs {name}, which is not installed; run pip install "
                "'recsys[export]'."
            )
