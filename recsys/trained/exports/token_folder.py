"""A folder that sentence-transformers 6 loads as a MultiVectorEncoder, for late interaction.

What token states pass is written as maps and norms of "token_embeddings". Items and queries may
pass different heads, which a Router tells apart; what stands for special tokens is left out of the
scores by a MultiVectorMask.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from recsys.encoders.cache.token_states import drop_special_tokens
from recsys.encoders.pretrained.sentence_transformers import LENGTHS, MODULES, PROMPTS
from recsys.encoders.pretrained.source import WEIGHTS
from recsys.encoders.text_tower import Step, TokenTowers, UnitLength
from recsys.errors import RecsysError
from recsys.trained.exports.opened import (
    OpenedRun,
    choose_tolerance,
    fold_tuning,
    open_for_tokens,
)
from recsys.trained.exports.source import ExportSource
from recsys.trained.exports.texts import TextFormat, select_checked_rows
from recsys.types import Ragged

_TOKENS = "token_embeddings"
_PARTS = "sentence_transformers.base.modules"
_MASK = "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"
_PLACES = {"module_input_name": _TOKENS, "module_output_name": _TOKENS}


def write_token_folder(run: ExportSource, folder: Path) -> list[str]:
    """Fills a folder, and compares what is read from it with the run's own token vectors.

    Args:
        run: The run, of late interaction.
        folder: An empty folder.

    Returns:
        Sentences on what the folder holds.

    Raises:
        ConfigError: What makes a token's vector is more than such a folder can hold.
        RecsysError: The vectors of what was written differ.
    """
    opened, towers = open_for_tokens(run)
    rows = select_checked_rows(opened)
    own = _encode_own(opened, towers, rows)
    fold_tuning(opened, (), instead="format=bundle")
    form = TextFormat.of_run(opened)
    model: Any = towers.encoder.model
    model.save_pretrained(folder)
    form.tokenizer.save_pretrained(folder)
    modules = [(f"{_PARTS}.transformer.Transformer", "")]
    steps = [towers.items, towers.queries]
    if _are_same(*steps):
        modules += _write_steps(folder, towers.items, "", 1)
    else:
        modules.append((f"{_PARTS}.router.Router", "1_Router"))
        _write_router(folder / "1_Router", dict(zip(("document", "query"), steps, strict=True)))
    skipped = [] if towers.specials else _list_specials(opened, form)
    name = f"{len(modules)}_MultiVectorMask"
    tasks = ["query", "document"]
    _write_json(folder / name / "config.json", {"skiplist_words": skipped, "skiplist_tasks": tasks})
    modules.append((_MASK, name))
    _write_modules(folder, modules)
    _write_settings(folder, form)
    error = _compare(opened, towers, folder, form, rows, own)
    return [
        "sentence-transformers 6 loads it with MultiVectorEncoder, which version 5 has not; "
        "SentenceTransformer and AutoModel read the encoder alone, which is not this run",
        f"checked with {len(rows)} items: the vectors of tokens are the run's within {error:.1g}",
        f"a score of the run is {towers.scale:.7g} times the similarity (mean over the query's "
        "tokens); for a history it is a mean over its last titles, weighted by their age",
    ]


def _are_same(first: Sequence[Step], second: Sequence[Step]) -> bool:
    """Whether two sides do the same."""
    return len(first) == len(second) and all(
        type(one) is type(other)
        and all(a.equal(b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
        for one, other in zip(first, second, strict=True)
    )


def _list_specials(opened: OpenedRun, form: TextFormat) -> list[str]:
    """The special tokens around a text, as the tokenizer spells them."""
    own = opened.encoding.encoder.specials
    words: list[str] = form.tokenizer.convert_ids_to_tokens([*own.prefix, *own.suffix])
    return sorted(set(words))


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_modules(folder: Path, modules: Sequence[tuple[str, str]]) -> None:
    """Names the modules in their order: type, and folder."""
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": kind}
        for number, (kind, path) in enumerate(modules)
    ]
    _write_json(folder / MODULES, listed)


def _write_settings(folder: Path, form: TextFormat) -> None:
    """Says what stands before a text, how long it is, and how token vectors are compared."""
    about = {
        "model_type": "MultiVectorEncoder",
        "prompts": {"query": form.query_prompt, "document": form.item_prompt},
        "default_prompt_name": "document" if form.item_prompt else None,
        "similarity_fn_name": "meanmaxsim",
    }
    _write_json(folder / PROMPTS, about)
    forward = {"method": "forward", "method_output_name": "last_hidden_state"}
    how = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": forward},
        "module_output_name": _TOKENS,
        "max_seq_length": form.longest,
        "do_lower_case": form.lower,
    }
    _write_json(folder / LENGTHS[0], how)


def _write_steps(
    folder: Path, steps: Sequence[Step], prefix: str, first: int
) -> list[tuple[str, str]]:
    """Writes what token states pass; type and folder of each."""
    out = []
    for number, step in enumerate(steps, first):
        if isinstance(step, UnitLength):
            name, kind = f"{prefix}{number}_Normalize", f"{_PARTS}.normalize.Normalize"
            about: dict[str, Any] = dict(_PLACES)
        else:
            name, kind = f"{prefix}{number}_Dense", f"{_PARTS}.dense.Dense"
            about = {
                "in_features": step.in_features,
                "out_features": step.out_features,
                "bias": step.bias is not None,
                "activation_function": "torch.nn.modules.linear.Identity",
                **_PLACES,
            }
        _write_json(folder / name / "config.json", about)
        if isinstance(step, nn.Linear):
            state = {f"linear.{key}": value.cpu() for key, value in step.state_dict().items()}
            contiguous = {key: value.contiguous() for key, value in state.items()}
            save_file(contiguous, folder / name / WEIGHTS)
        out.append((kind, name))
    return out


def _write_router(folder: Path, routes: dict[str, Sequence[Step]]) -> None:
    """Writes what items and queries pass each; without a word an item is meant."""
    folder.mkdir()
    types: dict[str, str] = {}
    structure: dict[str, list[str]] = {}
    for route, steps in routes.items():
        written = _write_steps(folder, steps, f"{route}_", 0)
        structure[route] = [name for _, name in written]
        types |= {name: kind for kind, name in written}
    parameters = {"default_route": "document", "allow_empty_key": True}
    about = {"types": types, "structure": structure, "parameters": parameters}
    _write_json(folder / "router_config.json", about)


@torch.no_grad()
def _encode_own(opened: OpenedRun, towers: TokenTowers, rows: Sequence[int]) -> list[Tensor]:
    """Token vectors (L, D) of items, as the run makes them."""
    catalog = opened.encoding.catalog
    tokens = catalog.gather_tokens(torch.tensor(rows))
    states = towers.encoder.compute_states(tokens)
    if not towers.specials:
        states = drop_special_tokens(states, tokens.sizes, towers.encoder)
    return list(Ragged(nn.Sequential(*towers.items)(states.values.float()), states.sizes).split())


@torch.no_grad()
def _compare(
    opened: OpenedRun,
    towers: TokenTowers,
    folder: Path,
    form: TextFormat,
    rows: Sequence[int],
    own: Sequence[Tensor],
) -> float:
    """The largest difference of a number of a token's vector, read by transformers.

    Raises:
        RecsysError: It is more than rounding explains.
    """
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    specials = opened.encoding.encoder.specials
    left_out = torch.tensor([] if towers.specials else [*specials.prefix, *specials.suffix])
    head, worst = nn.Sequential(*towers.items), 0.0
    for row, expected in zip(rows, own, strict=True):
        read = tokenizer(
            [form.prepare_text(opened.texts[row])], truncation=True, return_tensors="pt"
        )
        kept = ~torch.isin(read["input_ids"][0], left_out)
        inputs = {"input_ids": read["input_ids"], "attention_mask": read["attention_mask"]}
        vectors = head(model(**inputs).last_hidden_state[0][kept].float())
        same = vectors.shape == expected.shape
        worst = max(worst, float((vectors - expected).abs().max()) if same else float("inf"))
    if not worst <= choose_tolerance(opened.run.config.encoder):
        raise RecsysError(
            f"{opened.run.folder}: the token vectors of what was written differ from the run's by "
            f"{worst:.1g}; please report it with the run's config.yaml"
        )
    return worst
