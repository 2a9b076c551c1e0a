"""Writes how texts are read: the encoder, and what scores a free text with it alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recsys.assembly.encoding import load_encoder
from recsys.config.compose import RunConfig
from recsys.config.groups import EncoderOptions
from recsys.encoders.text_tower import UnitLength
from recsys.errors import ConfigError
from recsys.pretrain.encoder_folder import write_encoder_folder
from recsys.recommender.base import Recommender
from recsys.recommender.components import TextComponents
from recsys.recommender.parameters import ENCODERS
from recsys.trained.bundle import manifest


def save_array(path: Path, values: Tensor) -> None:
    """Writes a tensor as an array without Python objects."""
    path.parent.mkdir(exist_ok=True)
    np.save(path, values.detach().cpu().contiguous().numpy(), allow_pickle=False)


def can_fold(recommender: Recommender, encoding: TextComponents) -> bool:
    """Whether what trained in the encoder can be part of one plain encoder."""
    names = (name for name, _ in recommender.named_parameters())
    two = any(name.startswith(ENCODERS[1]) for name in names)
    pooled = any(True for _ in encoding.encoder.pooling.parameters())
    added = bool(encoding.tuned.added) and encoding.tuned.merge is None
    return not (two or pooled or added)


def write_encoder(path: Path, run: RunConfig, encoding: TextComponents, folds: bool) -> None:
    """Writes the encoder with what trained in it folded in, or as it was pretrained.

    Args:
        path: The folder to make.
        run: The configuration.
        encoding: How texts are read; what is folded in stays so.
        folds: What `can_fold` gave.
    """
    if not folds:
        plain = load_encoder(replace(run.encoder, pooling="auto"))
        write_encoder_folder(path, plain, "auto")
        return
    if encoding.tuned.merge is not None:
        with torch.no_grad():
            encoding.tuned.merge()
    write_encoder_folder(path, encoding, run.encoder.pooling)


def write_text_form(
    folder: Path,
    options: EncoderOptions,
    recommender: Recommender,
    encoding: TextComponents | None,
    catalog: Tensor | None,
) -> bool:
    """Writes how a free text is scored by the encoder in the folder and products of arrays.

    Args:
        folder: Of the bundle.
        options: How that encoder is loaded.
        recommender: The model.
        encoding: How it reads texts, or None.
        catalog: (I, ...) what `index_catalog` gave, or None.

    Returns:
        Whether texts can be scored so; nothing is written where they cannot.
    """
    if catalog is None or encoding is None or not can_fold(recommender, encoding):
        return False
    if encoding.user_texts is not None and encoding.user_texts.latest is not None:
        return False  # of a long text the end is read, and its prompt stands apart
    try:
        tower, score = recommender.make_query_tower(), recommender.describe_score(catalog)
    except ConfigError:  # something else than the text has a part in it
        return False
    if not score.complete:
        return False
    names: list[str] = []
    arrays: dict[str, Tensor] = {} if score.added is None else {manifest.ADDED: score.added}
    for step in tower.steps:
        if isinstance(step, UnitLength):
            names.append(manifest.UNIT)
            continue
        assert isinstance(step, nn.Linear)
        assert step.bias is None, "heads have none"
        names.append(str(len(names)))
        arrays[names[-1]] = step.weight
    about: dict[str, Any] = {
        "steps": names,
        "scale": score.scale,
        "width": int(recommender.select_item_vectors(catalog).shape[1]),
        "encoder": {
            name: getattr(options, name)
            for name in (
                "pooling",
                "attention",
                "max_length",
                "query_prompt",
                "item_prompt",
                "width",
            )
        },
    }
    (folder / manifest.TEXT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    for name, values in arrays.items():
        save_array(folder / manifest.TEXT_ARRAYS / f"{name}.npy", values)
    return True
