"""The text towers as an ONNX graph: pooling, heads and norm inside, in fp32 and in int8."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.encoders.pretrained.tokenizer import add_lowercasing
from recsys.encoders.text_tower import TextTower
from recsys.errors import ConfigError
from recsys.runtime.progress import print_status
from recsys.trained.exports.opened import (
    OpenedRun,
    Vectors,
    compute_overlap,
    fold_tuning,
    make_history_queries,
    open_for_export,
    select_best,
)
from recsys.trained.exports.quality import can_measure, measure_ranking
from recsys.trained.exports.sentence_folder import describe_check, is_same
from recsys.trained.exports.source import ExportSource
from recsys.trained.exports.texts import TextFormat, select_checked_rows
from recsys.trained.exports.vector_files import describe_vectors, hash_files

GRAPH, INT8, TOKENIZER, ABOUT = "model.onnx", "model_int8.onnx", "tokenizer.json", "onnx.json"
QUERY_GRAPH = "query.onnx"
"""Of an encoder that users have of their own."""

ITEM, QUERY = "item_vector", "query_vector"
"""The outputs."""

COMPARED = 25_000
"""Items among which int8 is compared with fp32, at the most; of more, no metrics are computed."""

_SIZES = (1, 2, 7, 16)
"""Texts of a batch, in turn, with which a graph is tried."""


@contextmanager
def _silence_logs() -> Iterator[None]:
    """Keeps back warnings of libraries that a user of the command cannot act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _Graph(nn.Module):
    """Towers that share an encoder."""

    def __init__(self, towers: Sequence[TextTower]) -> None:
        super().__init__()
        self.towers = nn.ModuleList(towers)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """(N, L) ids and mask -> a (N, D) of each tower."""
        first: Any = self.towers[0]
        states = first.compute_padded_states(input_ids, attention_mask)
        towers: Any = self.towers
        return tuple(tower.finish_states(states, attention_mask) for tower in towers)


def write_onnx(run: ExportSource, folder: Path) -> list[str]:
    """Fills a folder with a graph in fp32 and int8, its tokenizer, and what both are.

    Args:
        run: The run.
        folder: An empty folder.

    Returns:
        Sentences on what the folder holds, and how near int8 is.

    Raises:
        ConfigError: The model cannot be traced, or an item's vector is not of its text alone.
        RecsysError: The vectors of the graph differ from the run's.
    """
    opened = open_for_export(run)
    items, queries, why = opened.make_towers()
    fold_tuning(opened, [t for t in (items, queries) if t is not None], required=False)
    form = TextFormat.of_run(opened)
    tokenizer = _save_tokenizer(form, folder)
    towers, notes = {ITEM: items}, []
    if queries is None:
        notes.append(f"it encodes items alone, and no free texts: {why}")
    elif queries.encoder is not items.encoder:
        _trace(opened, {QUERY: queries}, tokenizer, form, folder / QUERY_GRAPH)
        notes.append(f"free texts have an encoder of their own, in {QUERY_GRAPH}")
    elif not is_same(items.steps, queries.steps) or any(items.encoder.skips):
        towers[QUERY] = queries
    _trace(opened, towers, tokenizer, form, folder / GRAPH)
    rows = select_checked_rows(opened)
    texts = [form.prepare_text(opened.texts[row]) for row in rows]
    checked = describe_check(opened, rows, _run_graph(folder / GRAPH, tokenizer, texts))
    vectors, compared = _quantize(opened, form, tokenizer, folder)
    overlap = _compare_best(opened, vectors, compared)
    metrics = {}
    if len(opened.vectors) <= COMPARED and can_measure(opened):
        pair = (measure_ranking(opened, each) for each in (opened.vectors, vectors))
        metrics = dict(zip(("fp32", "int8"), pair, strict=True))
    about = describe_vectors(opened) | {
        "inputs": ["input_ids", "attention_mask"],
        "outputs": list(towers),
        "prompts": {"query": form.query_prompt, "document": form.item_prompt},
        "max_length": form.longest,
        "int8_overlap@10": overlap,
        "test": metrics,
    }
    names = [name for name in (GRAPH, INT8, QUERY_GRAPH) if (folder / name).is_file()]
    about["sha256"] = hash_files(folder, (*names, TOKENIZER))
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    small, large = ((folder / name).stat().st_size / 2**20 for name in (INT8, GRAPH))
    how = f"of {len(compared):,} items, for users' histories"
    return [
        f"{GRAPH} ({large:.0f} MB) gives {' and '.join(towers)}; {checked}",
        f"{INT8} ({small:.0f} MB): {overlap:.1%} of the ten best {how} are those of fp32",
        *_describe_metrics(metrics),
        *notes,
        *opened.list_remarks(),
    ]


def _save_tokenizer(form: TextFormat, folder: Path) -> Any:  # noqa: ANN401 - untyped
    """Writes the tokenizer as the package tokenizers reads it, which pads and cuts by itself."""
    if form.lower:
        add_lowercasing(form.tokenizer)
    backend = form.tokenizer.backend_tokenizer
    backend.enable_truncation(max_length=form.longest)
    pad = form.tokenizer.pad_token
    backend.enable_padding(pad_id=form.tokenizer.convert_tokens_to_ids(pad), pad_token=pad)
    backend.save(str(folder / TOKENIZER))
    return backend


def _tokenize(tokenizer: Any, texts: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:  # noqa: ANN401
    """Inputs of a graph, each (N, L) int64."""
    read = tokenizer.encode_batch(list(texts))
    return {
        "input_ids": np.array([each.ids for each in read], dtype=np.int64),
        "attention_mask": np.array([each.attention_mask for each in read], dtype=np.int64),
    }


def _trace(
    opened: OpenedRun,
    towers: dict[str, TextTower],
    tokenizer: Any,  # noqa: ANN401
    form: TextFormat,
    path: Path,
) -> None:
    """Writes towers that share an encoder as one graph, for any number and length of texts.

    Raises:
        ConfigError: The model cannot be traced.
    """
    graph = _Graph(list(towers.values())).eval()
    model: Any = next(iter(towers.values())).encoder.model
    # Two texts at least: a single one is taken for a constant.
    texts = [form.prepare_text(opened.texts[row]) for row in select_checked_rows(opened)]
    inputs = _tokenize(tokenizer, (texts * 2)[: max(2, min(4, len(texts)))])
    ids, mask = (torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask"))
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    print_status("tracing the encoder for ONNX")
    try:
        model.set_attn_implementation("eager")
        with torch.no_grad(), _silence_logs():
            program = torch.onnx.export(
                graph,
                (ids, mask),
                dynamo=True,
                verbose=False,
                input_names=["input_ids", "attention_mask"],
                output_names=list(towers),
                dynamic_shapes={"input_ids": shape, "attention_mask": shape},
            )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the tracer raises what it likes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"{type(model).__name__} cannot be traced for ONNX ({reason}); use "
            "format=sentence_transformers or format=vectors."
        ) from error
    assert program is not None
    program.save(str(path))


def _run_graph(path: Path, tokenizer: Any, texts: Sequence[str], output: str = ITEM) -> Vectors:  # noqa: ANN401
    """(N, D) an output for texts, in batches of several sizes, as onnxruntime computes it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    blocks, start, turn = [], 0, 0
    while start < len(texts):
        size = _SIZES[min(turn, len(_SIZES) - 1)]
        blocks.append(session.run([output], _tokenize(tokenizer, texts[start : start + size]))[0])
        start, turn = start + size, turn + 1
    return np.concatenate(blocks)


def _list_vector_products(path: Path) -> list[str]:
    """Names of products with a vector, as of a learned pooling, which int8 has no kernel for."""
    import onnx

    graph = onnx.load(path).graph
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and any(ranks.get(name, 2) != 2 for name in node.input)
    ]


def _quantize(
    opened: OpenedRun,
    form: TextFormat,
    tokenizer: Any,  # noqa: ANN401
    folder: Path,
) -> tuple[Vectors, NDArray[np.int64]]:
    """Writes the graph with weights of eight bits.

    Returns:
        (I, D) item vectors, and the (N,) catalog rows of those that are of this graph.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    print_status("quantising to int8, and encoding items with it")
    # A scale for each column: with one for a matrix, its largest numbers decide for all.
    with _silence_logs():
        quantize_dynamic(
            folder / GRAPH,
            folder / INT8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=_list_vector_products(folder / GRAPH),
        )
    count = len(opened.vectors)
    rows = np.unique(np.linspace(0, count - 1, min(COMPARED, count)).astype(int))
    rows = rows[[bool(opened.texts[row].strip()) for row in rows.tolist()]]
    texts = [form.prepare_text(opened.texts[row]) for row in rows.tolist()]
    small = opened.vectors.copy()
    small[rows] = _run_graph(folder / INT8, tokenizer, texts)
    return small, rows


def _compare_best(opened: OpenedRun, small: Vectors, rows: NDArray[np.int64]) -> float:
    """The share of the ten best items of users' histories that both graphs have in common."""
    best = [
        select_best(make_history_queries(opened, vectors), vectors[rows], 10)
        for vectors in (opened.vectors, small)
    ]
    return compute_overlap(*best)


def _describe_metrics(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A line on what int8 costs the run's test cases, where that was measured."""
    if not metrics:
        return []
    full, small = metrics["fp32"], metrics["int8"]
    parts = [f"{name} {100 * full[name]:.2f} -> {100 * small[name]:.2f}" for name in full]
    return [f"test cases with item vectors of fp32 -> int8, in percent: {', '.join(parts)}"]
