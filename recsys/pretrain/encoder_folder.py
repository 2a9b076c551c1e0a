"""The folder that a pretraining leaves: an encoder as transformers have it, and its pooling."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import save_file

from recsys.encoders.encoder import Encoder
from recsys.encoders.pretrained.sentence_transformers import (
    FLAGS,
    LENGTHS,
    MODES,
    MODULES,
    PROMPTS,
    EmbeddingSpec,
    read_modules,
)
from recsys.encoders.pretrained.source import WEIGHTS, ModelFiles, read_json
from recsys.encoders.pretrained.tokenizer import load_tokenizer
from recsys.runtime.files import open_atomic_folder

POOLING = "1_Pooling"
KINDS = "sentence_transformers.models"


class LoadedEncoder(Protocol):
    """What is written of an encoder that was loaded."""

    @property
    def encoder(self) -> Encoder:
        """The model."""
        ...

    @property
    def following(self) -> EmbeddingSpec:
        """How its states become vectors, and what stands before texts."""
        ...

    @property
    def files(self) -> ModelFiles:
        """What it was read from."""
        ...


def write_encoder_folder(path: Path, loaded: LoadedEncoder, pooling: str) -> None:
    """Writes an encoder whose added parameters are folded in, whole or not at all, in fp32.

    Args:
        path: The folder to make; one that is there is replaced.
        loaded: What was loaded and trained.
        pooling: The option `encoder.pooling`; with auto, what its folder says is kept.

    Raises:
        DataError: The disk is full.
    """
    shutil.rmtree(path, ignore_errors=True)  # of an attempt that was stopped behind it
    encoder, files = loaded.encoder, loaded.files
    with open_atomic_folder(path) as folder:
        encoder.restore_precision()
        model: Any = encoder.model
        model.save_pretrained(folder)
        # Anew: the one in use may have a step more, by which the folder says it reads lower case.
        load_tokenizer(files, ends=loaded.following.ends).save_pretrained(folder)
        kept = pooling == "auto" and _copy_modules(files, folder, encoder)
        if not kept:
            _write_pooling(folder, loaded)
        if loaded.following.item_prompt or loaded.following.query_prompt:
            _write_prompts(files, folder, loaded)


def _copy_modules(files: ModelFiles, folder: Path, encoder: Encoder) -> bool:
    """Copies what a sentence-transformers folder says besides weights; false where it is none.

    Dense maps may have trained with the encoder: their weights are written anew.
    """
    listed = files.find_file(MODULES, optional=True)
    if listed is None:
        return False
    shutil.copyfile(listed, folder / MODULES)
    for name in (PROMPTS, *LENGTHS):
        found = files.find_file(name, optional=True)
        if found is not None:
            shutil.copyfile(found, folder / name)
    for kind, inner in read_modules(listed):
        found = files.find_file(f"{inner}/config.json") if kind in ("Pooling", "Dense") else None
        if inner:
            (folder / inner).mkdir(parents=True, exist_ok=True)
        if found is not None:
            shutil.copyfile(found, folder / inner / "config.json")
    for dense in encoder.dense:
        about: Any = dense.about
        state = {name: value.cpu().contiguous() for name, value in dense.state_dict().items()}
        save_file(state, folder / about.folder / WEIGHTS)
    return True


def _write_pooling(folder: Path, loaded: LoadedEncoder) -> None:
    """Says how states were pooled, where that is not the mean, which is taken by itself."""
    if loaded.following.pooling == ("mean",):
        return
    write_modules(folder, [("Transformer", ""), ("Pooling", POOLING)])
    write_pooling(folder / POOLING, loaded.encoder.width, loaded.following)


def write_pooling(folder: Path, width: int, following: EmbeddingSpec) -> None:
    """Writes the folder of a pooling module.

    Args:
        folder: To be made.
        width: D, of the token states.
        following: Names the poolings.
    """
    words = {name: mode for mode, name in MODES.items()}
    about: dict[str, object] = {
        "word_embedding_dimension": width,
        "include_prompt": following.include_prompt,
    }
    # Flags for each are read by versions that take one mode at most; they put several together in
    # an order of their own.
    if following.pooling == tuple(name for name in FLAGS.values() if name in following.pooling):
        about |= {flag: name in following.pooling for flag, name in FLAGS.items()}
    else:
        about["pooling_mode"] = [words[name] for name in following.pooling]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")


def _write_prompts(files: ModelFiles, folder: Path, loaded: LoadedEncoder) -> None:
    """Says which prompts stood before texts, whether its folder or an option did."""
    own = files.find_file(PROMPTS, optional=True)
    about = {} if own is None else read_json(own)
    following = loaded.following
    prompts = {"query": following.query_prompt, "document": following.item_prompt}
    about["prompts"] = {**(about.get("prompts") or {}), **prompts}
    (folder / PROMPTS).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    if not (folder / MODULES).is_file():
        # Prompts are read of folders of sentence-transformers only.
        write_modules(folder, [("Transformer", "")])


def write_modules(folder: Path, modules: Sequence[tuple[str, str]]) -> None:
    """Lists modules by kind and folder, as sentence-transformers does."""
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"{KINDS}.{kind}"}
        for n, (kind, path) in enumerate(modules)
    ]
    (folder / MODULES).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
