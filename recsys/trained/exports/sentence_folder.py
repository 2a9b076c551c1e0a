"""A folder that sentence-transformers and transformers load, without code of this package.

The types of modules and the keys of the pooling are those that versions 5 and 6 both read. What a
residual head does to a vector is one Dense map; where a free text passes another head than an item,
a Router tells `encode_query` from `encode_document`, and `encode` alone is an item's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from recsys.encoders import pooling
from recsys.encoders.pretrained.dense import Dense
from recsys.encoders.pretrained.sentence_transformers import LENGTHS, PROMPTS
from recsys.encoders.pretrained.source import WEIGHTS
from recsys.encoders.text_tower import Step, TextTower, UnitLength
from recsys.errors import ConfigError, RecsysError
from recsys.pretrain.encoder_folder import KINDS, POOLING, write_modules, write_pooling
from recsys.trained.exports.opened import (
    OpenedRun,
    choose_tolerance,
    compute_largest_error,
    fold_tuning,
    open_for_export,
)
from recsys.trained.exports.source import ExportSource, compares_tokens
from recsys.trained.exports.texts import TextFormat, select_checked_rows

QUERY_FOLDER = "query"
"""Within the folder, that of an encoder that users have of their own."""

_IDENTITY = "torch.nn.modules.linear.Identity"


def write_sentence_folder(run: ExportSource, folder: Path) -> list[str]:
    """Fills a folder, and compares what is read from it with the run's own vectors.

    Args:
        run: The run.
        folder: An empty folder.

    Returns:
        Sentences on what the folder holds, and what it does not.

    Raises:
        ConfigError: What makes a vector is more than such a folder can hold.
        RecsysError: The vectors of what was written differ.
    """
    if compares_tokens(run):
        from recsys.trained.exports.token_folder import write_token_folder

        return write_token_folder(run, folder)
    opened = open_for_export(run)
    items, queries, why = opened.make_towers()
    if isinstance(items.encoder.pooling, pooling.Attention):
        raise ConfigError(
            "encoder.pooling=attention has a learned query, and sentence-transformers has no module"
            " for it; use format=onnx or format=vectors."
        )
    fold_tuning(opened, [tower for tower in (items, queries) if tower is not None])
    form = TextFormat.of_run(opened)
    own = queries is not None and queries.encoder is not items.encoder
    _write_model(folder, opened, form, items, None if own else queries)
    if own and queries is not None:
        (folder / QUERY_FOLDER).mkdir()
        _write_model(folder / QUERY_FOLDER, opened, form, queries, None)
    notes = [_check(opened, folder, form, items)]
    if queries is None:
        notes.append(f"it encodes items alone, and no free texts: {why}")
    elif own:
        notes.append(f"free texts have an encoder of their own, in {QUERY_FOLDER}/")
    return notes + opened.list_remarks()


def _write_model(
    folder: Path, opened: OpenedRun, form: TextFormat, first: TextTower, second: TextTower | None
) -> None:
    """Writes one encoder with its modules; the two towers share it."""
    model: Any = first.encoder.model
    model.save_pretrained(folder)
    form.tokenizer.save_pretrained(folder)
    modules = [("Transformer", ""), ("Pooling", POOLING)]
    write_pooling(folder / POOLING, first.encoder.width, opened.encoding.following)
    for dense in first.encoder.dense:
        assert isinstance(dense, Dense)
        if dense.about.unit:
            modules.append(write_step(folder, len(modules), UnitLength()))
        modules.append(write_dense(folder, len(modules), dense))
    cut = first.encoder.cut
    if cut is not None:  # as a map, which versions read that know no width
        modules.append(write_step(folder, len(modules), _make_cut(first.encoder.whole_width, cut)))
    if second is None or is_same(first.steps, second.steps):
        for step in first.steps:
            assert isinstance(step, Step)
            modules.append(write_step(folder, len(modules), step))
    else:
        name = f"{len(modules)}_Router"
        (folder / name).mkdir()
        routes = {"document": list(first.steps), "query": list(second.steps)}
        _write_router(folder / name, first.encoder.vector_width, routes)
        modules.append(("Router", name))
    write_modules(folder, modules)
    write_settings(folder, form, opened.score.unit, first.query)


def is_same(first: nn.Sequential, second: nn.Sequential) -> bool:
    """Whether two towers do the same to a pooled vector."""
    one, two = first.state_dict(), second.state_dict()
    return len(first) == len(second) and all(
        name in two and value.equal(two[name]) for name, value in one.items()
    )


def write_settings(folder: Path, form: TextFormat, unit: bool, query: bool) -> None:
    """Says how long a text is, what stands before it, and how vectors are compared.

    Without a word an item's text is meant, but in the folder of queries.

    Args:
        folder: Of the model.
        form: How texts are read.
        unit: Whether vectors are compared by their cosine.
        query: Whether it is the folder of queries.
    """
    prompts = {"query": form.query_prompt, "document": form.item_prompt}
    default = "query" if query else "document"
    about = {
        "prompts": prompts,
        "default_prompt_name": default if prompts[default] else None,
        "similarity_fn_name": "cosine" if unit else "dot",
    }
    limits = {"max_seq_length": form.longest, "do_lower_case": form.lower}
    for name, content in ((PROMPTS, about), (LENGTHS[0], limits)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_step(folder: Path, number: int, step: Step, prefix: str = "") -> tuple[str, str]:
    """Writes what a vector passes.

    Args:
        folder: Of the model.
        number: Its place among the modules.
        step: What is written.
        prefix: Of its folder's name.

    Returns:
        Its kind and folder, as `write_modules` takes them.
    """
    if isinstance(step, UnitLength):
        name = f"{prefix}{number}_Normalize"
        (folder / name).mkdir()
        return "Normalize", name
    state = {f"linear.{key}": value for key, value in step.state_dict().items()}
    about = {
        "in_features": step.in_features,
        "out_features": step.out_features,
        "bias": step.bias is not None,
        "activation_function": _IDENTITY,
    }
    return _write_map(folder, f"{prefix}{number}_Dense", about, state)


def write_dense(folder: Path, number: int, dense: Dense) -> tuple[str, str]:
    """Writes a map of the pretrained folder, which may have trained.

    Args:
        folder: Of the model.
        number: Its place among the modules.
        dense: The map.

    Returns:
        Its kind and folder, as `write_modules` takes them.
    """
    about, kind = dense.about, type(dense.activation)
    config: dict[str, object] = {
        "in_features": about.inputs,
        "out_features": about.outputs,
        "bias": about.bias,
        "activation_function": f"{kind.__module__}.{kind.__qualname__}",
    }
    if about.residual:  # unknown to older versions, which read all others
        config["use_residual"] = True
    return _write_map(folder, f"{number}_Dense", config, dict(dense.state_dict()))


def _write_map(
    folder: Path, name: str, about: dict[str, object], state: dict[str, Tensor]
) -> tuple[str, str]:
    (folder / name).mkdir()
    (folder / name / "config.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    save_file(tensors, folder / name / WEIGHTS)
    return "Dense", name


def _make_cut(inputs: int, outputs: int) -> nn.Linear:
    """A map that keeps so many numbers at the front."""
    out = nn.Linear(inputs, outputs, bias=False)
    nn.init.eye_(out.weight)
    return out


def _write_router(folder: Path, width: int, routes: Mapping[str, Sequence[nn.Module]]) -> None:
    """Writes what items and free texts pass each; without a word an item is meant.

    A route without a step has a map that changes nothing: none may be empty.
    """
    types: dict[str, str] = {}
    structure: dict[str, list[str]] = {}
    for route, steps in routes.items():
        structure[route] = []
        for number, step in enumerate(steps or [_make_cut(width, width)]):
            assert isinstance(step, Step)
            kind, name = write_step(folder, number, step, f"{route}_")
            types[name] = f"{KINDS}.{kind}"
            structure[route].append(name)
    parameters = {"default_route": "document", "allow_empty_key": True}
    about = {"types": types, "structure": structure, "parameters": parameters}
    (folder / "router_config.json").write_text(json.dumps(about, indent=4) + "\n", "utf-8")


@torch.no_grad()
def _check(opened: OpenedRun, folder: Path, form: TextFormat, items: TextTower) -> str:
    """Encodes texts with what was written, as transformers reads it, against the run's vectors.

    Raises:
        RecsysError: They differ.
    """
    from transformers import AutoModel, AutoTokenizer

    rows = select_checked_rows(opened)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    whole, items.encoder.model = items.encoder.model, model
    blocks = []
    for start in range(0, len(rows), 16):
        texts = [form.prepare_text(opened.texts[row]) for row in rows[start : start + 16]]
        read = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        blocks.append(items.encode_padded(read["input_ids"], read["attention_mask"]).numpy())
    items.encoder.model = whole
    return describe_check(opened, rows, np.concatenate(blocks))


def describe_check(opened: OpenedRun, rows: Sequence[int], found: np.ndarray[Any, Any]) -> str:
    """A sentence on how near vectors are to those of the run.

    Args:
        opened: The run.
        rows: Catalog rows of the vectors.
        found: (N, D) what was computed with what was written.

    Raises:
        RecsysError: They differ by more than rounding explains.
    """
    error = compute_largest_error(opened.vectors[list(rows)], found)
    if not error <= choose_tolerance(opened.run.config.encoder):
        raise RecsysError(
            f"{opened.run.folder}: the vectors of what was written differ from the run's by "
            f"{error:.1g} of a vector's length; please report it with the run's config.yaml"
        )
    return f"checked with {len(rows)} items: the vectors are the run's within {error:.1g}"
