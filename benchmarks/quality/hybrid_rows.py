"""What `hybrids.py` runs: the tables, and the rows of each with what they are tested against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rates import words_of
from words import FEW, MINILM, SMALL, TOWERS

SEEDS = 3
METRIC = "ndcg@10"
CASES = ["evaluation.max_cases=2500"]

TEXT_EASE = "EASE + texts"
TUNED = "LoRA"
IDS = "SASRec on ids"
SEEDS_OF_IDS = f"three seeds of {IDS}"
PAIRS = "co-occurrence"
PAIRS_WORDS = ["tuning.embeddings=true", "optimizer.lr=0.001", "pretraining.logq=1"]
"""Of pretraining the small BERT on pairs, chosen on ml-100k's validation part."""


@dataclass(frozen=True)
class Row:
    """A method.

    Attributes:
        words: Of its runs; `{NAME}` stands for the folder of that row's run of the same seed, and
            `{NAME:N}` for that of seed N.
        seeded: Whether another seed changes it.
        against: The rows that it is tested against, as the plan says.
        shown: Whether it stands in the table; an encoder that others read does not rank.
        module: The command that runs it.
    """

    words: list[str]
    seeded: bool = True
    against: tuple[str, ...] = ()
    shown: bool = True
    module: str = "recsys.fit"


Rows = dict[str, Row]
Rates = Mapping[str, Mapping[str, float]]
"""The chosen learning rate of each tuning method, by the search that chose it."""


@dataclass(frozen=True)
class Table:
    """A page.

    Attributes:
        data: Folder of the data set.
        own: Words of its data.
        make: Its rows, each after those that it builds on.
        prefix: What its metrics are called before their names.
        evaluated: Words of its evaluation, beside those of all.
        shown: The metrics that the page shows beside those of warm and cold cases.
    """

    data: str
    own: list[str]
    make: Callable[[Rates], Rows]
    prefix: str = ""
    shown: tuple[str, ...] = ("hr@10", METRIC)
    evaluated: tuple[str, ...] = ()

    @property
    def common(self) -> list[str]:
        """Words of all its runs of a recommender."""
        return [*CASES, f"evaluation.monitor=balanced/{self.prefix}{METRIC}", *self.evaluated]


def _make_ensemble(members: list[str], combine: str) -> list[str]:
    return [
        "experiment=null",
        "architecture=ensemble",
        f"architecture.members=[{','.join(members)}]",
        f"architecture.combine={combine}",
    ]


def _make_pretrained(name: str, *words: str) -> Row:
    return Row([f"experiment={name}", *SMALL, *words], shown=False, module="recsys.pretrain")


def _make_counting() -> Rows:
    """What reads no word, or only counts words."""
    return {
        "popularity": Row(["experiment=popularity"], seeded=False),
        "tfidf, recency": Row(["experiment=tfidf", "architecture.history=recency"], seeded=False),
        "item kNN": Row(["experiment=item_knn"], seeded=False),
        "EASE": Row(["experiment=ease"], seeded=False),
    }


def _make_minilm(tuned: str) -> Rows:
    """What takes frozen MiniLM.

    Args:
        tuned: The best row of texts alone.
    """
    return {
        "zero-shot, MiniLM": Row(["experiment=zero_shot"], seeded=False),
        "item kNN + texts, MiniLM": Row(["experiment=item_knn_text"], False, ("item kNN",)),
        "EASE + texts, MiniLM": Row(["experiment=ease_text"], False, ("EASE", tuned)),
        "frozen, MiniLM": Row(["experiment=frozen_two_tower"]),
        "EASE + frozen, MiniLM": Row(
            ["experiment=ease_text", "architecture.vectors={frozen, MiniLM}"],
            against=("EASE + texts, MiniLM",),
        ),
    }


def _make_tuned_minilm(rates: Rates) -> Rows:
    """What tunes MiniLM, and the hybrids with that."""
    names = {"LoRA, MiniLM": "LoRA, last 2", "full, MiniLM": "full"}
    tunings = {"LoRA, MiniLM": ["tuning=lora", "tuning.layers=2"], "full, MiniLM": ["tuning=full"]}
    rows = {
        name: Row([*MINILM, *tunings[name], *words_of(rate, dict(rates["MiniLM"]))])
        for name, rate in names.items()
    }
    for name in names:
        rows[f"EASE + {name}"] = Row(
            ["experiment=ease_text", f"architecture.vectors={{{name}}}"],
            against=("EASE + texts, MiniLM",),
        )
    return rows


def make_hybrids(rates: Rates) -> Rows:
    """The rows of a set with the small BERT, and those of frozen MiniLM."""
    chosen = dict(rates["two towers"])

    def make_hybrid(vectors: str) -> list[str]:
        return ["experiment=ease_text", *SMALL, f"architecture.vectors={vectors}"]

    rows = _make_counting() | {
        "item kNN + texts": Row(["experiment=item_knn_text", *SMALL], False, ("item kNN",)),
        TEXT_EASE: Row(make_hybrid("encoder"), False, ("EASE", TUNED)),
        "zero-shot": Row(["experiment=zero_shot", *SMALL], seeded=False),
        IDS: Row(["experiment=sasrec"]),
        "frozen": Row([*TOWERS, *SMALL, "tuning=frozen"]),
        TUNED: Row([*TOWERS, *SMALL, "tuning=lora", *words_of("LoRA", chosen)]),
        "full": Row([*TOWERS, *SMALL, "tuning=full", *words_of("full", chosen)]),
        "text+id": Row(["experiment=text_id_two_tower", *SMALL], against=("frozen",)),
        "SASRec on texts and ids": Row(["experiment=sasrec_text", *SMALL]),
        PAIRS: _make_pretrained("co_occurrence", *PAIRS_WORDS),
    }
    for name in ("frozen", TUNED, "full"):
        rows[f"EASE + {name}"] = Row(make_hybrid(f"{{{name}}}"), against=(TEXT_EASE,))
    rows[f"EASE + {PAIRS}"] = Row(
        ["experiment=ease_text", f"encoder.model={{{PAIRS}}}"], against=(TEXT_EASE,)
    )
    of_three = [f"{{{name}}}" for name in (TEXT_EASE, IDS, TUNED)]
    weighted = (TEXT_EASE, IDS, SEEDS_OF_IDS)
    for combine in ("rrf", "weighted", "ranker"):
        against = weighted if combine == "weighted" else ()
        rows[f"ensemble, {combine}"] = Row(_make_ensemble(of_three, combine), against=against)
    of_seeds = [f"{{{IDS}:{seed}}}" for seed in range(SEEDS)]
    rows[SEEDS_OF_IDS] = Row(_make_ensemble(of_seeds, "rrf"), seeded=False)
    return rows | _make_minilm(TUNED)


def make_minilm(rates: Rates) -> Rows:
    """Rows with MiniLM alone, frozen and tuned."""
    return _make_counting() | _make_tuned_minilm(rates) | _make_minilm("LoRA, MiniLM")


def make_hybrids_and_minilm(rates: Rates) -> Rows:
    """All of `make_hybrids`, and what tunes MiniLM."""
    return make_hybrids(rates) | _make_tuned_minilm(rates)


def make_pretrainings(rates: Rates) -> Rows:
    """Ways to train an encoder on texts before: each with and without heads behind it."""
    del rates
    return _make_pretrainings()


def make_short_pretrainings(rates: Rates) -> Rows:
    """The same where there are twelve times the texts: about as many are read."""
    del rates
    return _make_pretrainings("trainer.epochs=3")


def _make_pretrainings(*passes: str) -> Rows:
    """Rows of pretraining, `passes` being words of those that shipped read 30 times."""
    ways = {
        "mlm": _make_pretrained("mlm", *passes),
        "simcse": _make_pretrained("simcse"),
        "tsdae": _make_pretrained("tsdae", *passes),
        "co-occurrence, defaults": _make_pretrained("co_occurrence"),  # meant for larger encoders
        PAIRS: _make_pretrained("co_occurrence", *PAIRS_WORDS),
    }
    heads = ["experiment=frozen_two_tower"]
    rows = {
        "zero-shot": Row(["experiment=zero_shot", *SMALL], seeded=False),
        "frozen": Row([*heads, *SMALL]),
    } | ways
    for name in ways:
        encoder = f"encoder.model={{{name}}}"
        rows[f"zero-shot after {name}"] = Row(["experiment=zero_shot", encoder])
        rows[f"frozen after {name}"] = Row([*heads, encoder], against=("frozen",))
    return rows


def make_augmentations(rates: Rates) -> Rows:
    """Ways to change what training sees: of histories under SASRec, of texts under full tuning."""
    histories = {
        "crop": "{crop: .2}",
        "mask": "{mask: .3}",
        "masks at test time too": "{mask: .5, test_masks: 8}",
        "reorder": "{reorder: .1}",
        "substitute": "{substitute: .1}",
        "all four": "{crop: .2, mask: .1, reorder: .1, substitute: .1}",
    }
    texts = {"drop words": "{drop_words: .1}", "drop fields": "{drop_fields: .2}"}
    full = [*TOWERS, *SMALL, "tuning=full", *words_of("full", dict(rates["two towers"]))]
    rows = {IDS: Row(["experiment=sasrec"])}
    for name, words in histories.items():
        rows[name] = Row(["experiment=sasrec", f"data.augment={words}"], against=(IDS,))
    rows["full"] = Row(full)
    for name, words in texts.items():
        rows[name] = Row([*full, f"data.augment={words}"], against=("full",))
    return rows


TABLES = {
    "ml-100k": Table("ml-100k", [], make_hybrids_and_minilm),
    "amazon-office": Table(
        "amazon-office",
        ["data.source.train_share=0.8", "data.max_history=10"],
        make_hybrids,
        prefix="same-title-",
        shown=("hr@5", "hr@10", METRIC),
        evaluated=(
            "evaluation.mask_history=false",
            "evaluation.hit_by=title",
            "evaluation.k=[5,10]",
            "evaluation.max_cases=null",
        ),
    ),
    "amazon-instruments": Table("amazon-instruments", [], make_hybrids),
    "movietweetings": Table(
        "movietweetings", ["data.split=time", "data.train_users=5000"], make_hybrids
    ),
    "online-retail": Table("online-retail", [], make_hybrids),
    "goodreads": Table("goodreads", ["data.train_users=5000"], make_hybrids),
    "amazon-instruments-minilm": Table("amazon-instruments", FEW, make_minilm),
    "pretraining-ml-100k": Table("ml-100k", [], make_pretrainings),
    "pretraining-amazon-instruments": Table("amazon-instruments", FEW, make_short_pretrainings),
    "augmentation-ml-100k": Table("ml-100k", [], make_augmentations),
    "augmentation-amazon-instruments": Table("amazon-instruments", FEW, make_augmentations),
}
SETS_OF_HYBRIDS = tuple(
    name for name, table in TABLES.items() if table.make in (make_hybrids, make_hybrids_and_minilm)
)
"""Tables that share their rows."""
