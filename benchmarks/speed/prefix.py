"""What the items of a user cost a decoder with its head: the user read once for all, or with each.

The model has the width of SmolLM2-135M, a few of its layers and random weights, which is all that
a time depends on; its tokenizer is that of the default encoder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from measure import Part, alternate, memory, row
from sides import Ours, apart, move
from transformers import LlamaConfig, LlamaForCausalLM

from recsys.config.compose import compose
from recsys.encoders.pretrained.source import ModelFiles
from recsys.encoders.pretrained.tokenizer import load_tokenizer
from recsys.types import Batch

LAYERS, USERS, CANDIDATES = 2, 2, 20
SHAPE = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
    "max_position_embeddings": 2048,
    "rope_theta": 100000.0,
}
WORDS = [
    "architecture=prompt",
    "architecture.yes=yes",
    "architecture.no=no",
    "objective=sampled_softmax",
    f"objective.negatives={CANDIDATES - 1}",
    "evaluation.protocol=candidates",
    f"evaluation.candidates={CANDIDATES}",
    f"evaluation.max_cases={USERS}",
    f"trainer.batch_size={USERS}",
]
TUNINGS = {"LoRA, all layers": ["tuning=lora"]}


def prefix(data: Path, runs: int) -> Part:
    """A step of training and one of evaluation, with the prefix shared and not."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        _write_model(Path(folder))
        for name, tuning in TUNINGS.items():
            rows += _measure(data, runs, name, [*WORDS, *tuning, f"encoder.model={folder}"])
    notes = [
        f"{USERS} users with {CANDIDATES} items each, random weights in the shape of SmolLM2-135M "
        f"with {LAYERS} of its 30 layers. *Tokens* are those that the layers run over.",
    ]
    return Part("Prefix", rows, notes)


def _write_model(folder: Path) -> None:
    """A random decoder with a tokenizer that knows words."""
    tokenizer = load_tokenizer(ModelFiles.locate(compose([]).encoder.model))
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=LAYERS, **SHAPE)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _measure(data: Path, runs: int, name: str, words: list[str]) -> list[dict[str, Any]]:
    """Rows of one tuning method: not shared first, which the others are compared with."""
    sides = {
        "a sequence each": Ours(data, [*words, "architecture.share_prefix=false"]),
        "shared": Ours(data, words),
    }
    for side in sides.values():
        move(side.model)
    batches = {at: side.batch(side.batches(1)[0]) for at, side in sides.items()}
    tests = {at: next(iter(side.made.datamodule.test_dataloader())) for at, side in sides.items()}
    found = {at: side.gradients(batches[at]) for at, side in sides.items()}
    exact = {at: apart(found[at], found["a sequence each"]) for at in sides}
    scores = {at: _score(side, tests[at]) for at, side in sides.items()}
    off = {at: float((s - scores["a sequence each"]).abs().max()) for at, s in scores.items()}
    trained = alternate(
        {at: side.step(lambda at=at: batches[at]) for at, side in sides.items()}, runs
    )
    evaluated = alternate(
        {at: (lambda at=at, side=side: _score(side, tests[at])) for at, side in sides.items()}, runs
    )
    rows = []
    for what, timings, checks in (
        (f"One optimiser step, {name}", trained, exact),
        (
            f"One step of evaluation, {name}",
            evaluated,
            {a: {"score apart": x} for a, x in off.items()},
        ),
    ):
        for at, side in sides.items():
            batch = batches[at] if timings is trained else tests[at]
            tokens = _count_tokens(side, batch)
            extra = {
                "tokens": float(tokens),
                "peak MB": _measure_peak(side, batch, timings is trained),
            }
            checked = {} if at == "a sequence each" else checks[at]
            rows.append(row(what, at, timings[at], texts=0, tokens=0, exact=checked, extra=extra))
    return rows


@torch.no_grad()
def _score(side: Ours, batch: Batch) -> torch.Tensor:
    """(Q, C) scores in evaluation."""
    side.model.eval()
    scores: torch.Tensor = side.model.score_candidates(batch, side.model.index(batch.plan))
    side.model.train()
    return scores


def _count_tokens(side: Ours, batch: Batch) -> int:
    """Tokens that the layers run over in a batch, padding not counted."""
    work = side.model.work
    before, work.counting = work.tokens, True
    _score(side, batch)
    work.counting = False
    return work.tokens - before


def _measure_peak(side: Ours, batch: Batch, trains: bool) -> float:
    """MB that a step takes on top of what is there."""
    call = side.step(lambda: batch) if trains else (lambda: _score(side, batch))
    return memory(call)
