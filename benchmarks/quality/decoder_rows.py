"""What `decoders.py` runs: the tables, and the rows of each with what they are tested against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hybrid_rows import Row, Rows

DECODER = "smollm2-135m"
"""Folder of SmolLM2-135M-Instruct beside the data sets."""
HALF = "encoder.dtype=bf16"
"""SmolLM2's frozen weights: two and a half times faster where the processor multiplies bf16."""

PASSES = {16: 10, 64: 5, 256: 2, 8000: 1}
"""Passes over so many training rows, for every model: a budget in rows and not in seconds."""
ALL = 8000
BATCH = "trainer.batch_size=16"
LAST = ["checkpoint.pick=last", "evaluation.max_cases=2", "evaluation.test=false"]
"""No choice on validation cases: with 16 rows to learn from, 1,000 labelled ones to choose by would
be most of what is known. `answers.py` tests."""

LIKE = [
    "data.split=given",
    "data.positive_from=1",
    "data.targets=labelled",
    "data.queries=last",
    "data.max_tokens=256",
    "evaluation.protocol=labels",
    "evaluation.k=[1]",
    "evaluation.monitor=hr@1",
]
CITED = {
    "TALLRec, 7B, as published": {16: 67.2, 64: 67.5, 256: 72.0},
    "SASRec, as published by TALLRec": {16: 50.4, 64: 50.5, 256: 52.3},
}
"""AUC over all rows, in percent (Bao et al., RecSys 2023, table of ml-100k)."""
FLOORS = {
    "share": "likes among the ten",
    "rate": "how often other users like it",
    "both": "both",
}
ASK = (
    "Given the user's preference and unpreference, identify whether the user will like the target "
    "movie by answering {yes} or {no}.\\n{user}\\nWhether the user will like the target movie "
    '\\"{candidate}\\"? Answer {yes} or {no}.'
)
"""TALLRec's question, as a word of a command has it."""

CROSS = "cross-encoder, MiniLM"
RETRIEVER = "item kNN + texts"
PROPOSED = 20
CASES = 300
TRAINING_USERS = "data.train_users=300"
RANK = [
    "data.max_history=10",
    "evaluation.protocol=candidates",
    f"evaluation.candidates={PROPOSED}",
    f"evaluation.candidates_from={{{RETRIEVER}}}",
]
HARD = [
    "data.negatives=hard",
    f"data.hard_from={{{RETRIEVER}}}",
    "data.hard_top=50",
]
"""Training sees what will be ranked: half of the negatives are what the retriever ranks high."""


@dataclass(frozen=True)
class Table:
    """A page.

    Attributes:
        data: Folder of the data set.
        own: Words of its data.
        make: Its rows, each after those that it builds on, given the folder of the decoder.
        common: Words of all its runs.
        cases: How many test cases are asked; None: all.
        labelled: Whether likes are told, and not items found.
    """

    data: str
    own: list[str]
    make: Callable[[Path], Rows]
    common: list[str]
    cases: int | None
    labelled: bool = False


def name_shots(method: str, rows: int) -> str:
    """A method that has learned from so many rows."""
    return f"{method}, {'all' if rows == ALL else rows} rows"


def _make_like_rows(decoder: Path, shots: list[int], decoder_shots: list[int]) -> Rows:
    """Rows of a table of likes.

    Args:
        decoder: Folder of the decoder.
        shots: Training rows of MiniLM.
        decoder_shots: Training rows of the decoder, with one seed.
    """
    encoders = {
        "two towers, MiniLM": ["experiment=document_two_tower", "encoder.max_length=256"],
        CROSS: [
            "experiment=lora_cross_encoder",
            "objective={name: bce, negatives: 0}",
            "encoder.max_length=256",
        ],
    }
    ask = [
        "experiment=prompt_reranker",
        f"encoder.model={decoder}",
        HALF,
        "objective={name: bce, negatives: 0}",
        f'architecture.template="{ASK}"',
    ]
    zero = "yes or no, SmolLM2, zero-shot"
    rows: Rows = {zero: Row([*ask, "trainer.max_steps=0"], seeded=False, against=("both",))}
    for method, words in encoders.items():
        for count in shots:
            learn = [*words, *_learn_from(count)]
            # A pass over all rows takes ten minutes.
            rows[name_shots(method, count)] = Row(learn, count != ALL, ("both",))
    for count in decoder_shots:
        learn = [*ask, *_learn_from(count)]
        against = (zero, name_shots(CROSS, count), "both")
        rows[name_shots("yes or no, SmolLM2, LoRA", count)] = Row(learn, False, against)
    return rows


def _learn_from(count: int) -> list[str]:
    """Words of a training on some rows, drawn by the run's seed."""
    drawn = [] if count == ALL else [f"data.train_users={count}", "data.sample_seed={seed}"]
    return [*drawn, f"trainer.epochs={PASSES[count]}", BATCH]


def make_tallrec(decoder: Path) -> Rows:
    """Rows of the movie table as TALLRec cuts it."""
    return _make_like_rows(decoder, [16, 64, 256, ALL], [16, 64, 256])


def make_by_time(decoder: Path) -> Rows:
    """Rows of the same task by time."""
    return _make_like_rows(decoder, [16, 256], [256])


def make_reranking(decoder: Path) -> Rows:
    """Rows of a table in which the retriever's best items are ranked anew."""
    frozen = ["experiment=zero_shot", *RANK, *LAST, "trainer.patience=null"]
    # Heads on kept vectors end by validation, which costs them next to nothing.
    choose = [f"evaluation.max_cases={CASES}", "evaluation.test=false"]
    heads = ["experiment=frozen_two_tower", *RANK, *choose]
    cross = ["experiment=lora_cross_encoder", *RANK, *LAST, *HARD, "objective.sampling=uniform"]
    ask = ["experiment=prompt_reranker", f"encoder.model={decoder}", HALF, *RANK, *LAST]
    few = [TRAINING_USERS, "trainer.epochs=1", BATCH]
    cheap = "frozen two towers, MiniLM"
    more = ["data.train_users=1000", "trainer.epochs=1", BATCH]
    learned = f"{CROSS}, 300 users"
    zero = "yes or no, SmolLM2, zero-shot"
    return {
        RETRIEVER: Row(["experiment=item_knn_text", "evaluation.max_cases=2500"], seeded=False),
        "zero-shot two towers, MiniLM": Row(frozen, seeded=False, against=(RETRIEVER,)),
        cheap: Row(heads, against=(RETRIEVER,)),
        learned: Row([*cross, *few], False, (RETRIEVER,)),
        f"{CROSS}, 1,000 users": Row([*cross, *more], against=(RETRIEVER, cheap)),
        zero: Row([*ask, "trainer.max_steps=0"], False, (RETRIEVER,)),
        "yes or no, SmolLM2, LoRA, 300 users": Row(
            [*ask, *HARD, *few], False, (RETRIEVER, zero, learned)
        ),
    }


TABLES = {
    "tallrec": Table("tallrec", [], make_tallrec, [*LIKE, *LAST], None, True),
    "tallrec-by-time": Table("tallrec-by-time", [], make_by_time, [*LIKE, *LAST], None, True),
    "rerank-ml-100k": Table("ml-100k", [], make_reranking, [], CASES),
    "rerank-amazon-office": Table(
        "amazon-office",
        ["data.source.train_share=0.8", "evaluation.mask_history=false"],
        make_reranking,
        [],
        CASES,
    ),
}
