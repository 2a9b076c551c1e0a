"""Peers: sentence-transformers' trainers on the same model, texts, batch and machine."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measure import Part, Timing, alternate, fresh_store, percent, row
from sides import Found, Ours, apart
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from recsys.config.compose import compose
from recsys.encoders.pretrained.source import ModelFiles
from recsys.recommender.flops import compute_pair_lengths
from recsys.recommender.optim import set_dropout
from recsys.types import Batch

NEEDS = ("sentence_transformers", "datasets", "accelerate")
LONGEST = 128  # tokens of a text or pair on both sides
TITLES = 1024  # of the table on encoding
WIDE = ["tuning=full", "tuning.embeddings=true", f"data.max_tokens={LONGEST}"]
"""Everything trains, as it does in sentence-transformers; no title is cut before it is joined."""


@dataclass
class Alternating(TrainerCallback):
    """Runs our step behind each of the trainer's, and takes the time of both; the first is no run.

    A step of the trainer is everything between two ends of steps: reading, collate, forward,
    backward, optimiser and whatever else it does.

    Attributes:
        ours: Our step.
        shared: The trainer's parameters by our names, for the gradients of the first step.
        theirs_time: Of the trainer's steps.
        ours_time: Of our steps.
        gradients: Of the trainer's first step.
    """

    ours: Callable[[], float]
    shared: dict[str, torch.nn.Parameter]
    theirs_time: Timing = field(default_factory=Timing)
    ours_time: Timing = field(default_factory=Timing)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    _since: tuple[float, float] = (0.0, 0.0)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object
    ) -> None:
        """Keeps the first gradients."""
        if not state.global_step:
            found = {n: p.grad for n, p in self.shared.items()}
            self.gradients = {n: g.detach().clone() for n, g in found.items() if g is not None}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object
    ) -> None:
        """The end of a step: ours follows."""
        now = time.perf_counter(), time.process_time()
        if state.global_step > 1:
            self.theirs_time.wall.append(now[0] - self._since[0])
            self.theirs_time.cpu.append(now[1] - self._since[1])
        gc.collect()
        began = time.perf_counter(), time.process_time()
        self.ours()
        if state.global_step > 1:
            self.ours_time.wall.append(time.perf_counter() - began[0])
            self.ours_time.cpu.append(time.process_time() - began[1])
        gc.collect()
        self._since = time.perf_counter(), time.process_time()


@dataclass
class Counter:
    """Counts what passes a model, as a hook before its look-up of token ids.

    The peer calls `forward` of the model itself, past its hooks.

    Args:
        pad: Token id of the padding.

    Attributes:
        texts: Rows.
        places: Token places, padding included.
        real: Tokens that are no padding.
    """

    pad: int
    texts: int = 0
    places: int = 0
    real: int = 0

    def __call__(self, module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        """Adds a pass over ids (N, L)."""
        self.texts += len(args[0])
        self.places += args[0].numel()
        self.real += int((args[0] != self.pad).sum())

    def watch(self, root: torch.nn.Module, kind: type) -> Callable[[], None]:
        """Begins with the one model of a kind in `root`; returns what ends it."""
        (inner,) = [m for m in root.modules() if type(m) is kind]
        table: torch.nn.Module = inner.get_input_embeddings()  # type: ignore[operator]
        return table.register_forward_pre_hook(self).remove

    def over(self, times: int) -> Counter:
        """The count of one call, after so many that were alike."""
        return Counter(self.pad, self.texts // times, self.places // times, self.real // times)

    def columns(self) -> dict[str, float | str]:
        """Columns of the table."""
        return {
            "texts encoded": float(self.texts),
            "tokens encoded": float(self.real),
            "padding": percent(1 - self.real / self.places),
        }


@dataclass(frozen=True)
class Both:
    """What a trainer and ours did.

    Attributes:
        clock: The times.
        theirs: What passed the trainer's model in a step.
        ours: What passed ours.
        found: Our loss and gradients at the first step.
        right: The trainer's.
    """

    clock: Alternating
    theirs: Counter
    ours: Counter
    found: Found
    right: Found

    @property
    def faster(self) -> float:
        """How many times as fast ours is."""
        return self.clock.theirs_time.median / self.clock.ours_time.median


def peers(data: Path, runs: int) -> Part:
    """Two trainers and the encoding, or a line that says what is missing.

    Args:
        data: Folder that holds `amazon-instruments`.
        runs: Steps of each that count.
    """
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        line = f"Not measured: {', '.join(missing)} missing; `pip install {EXTRA}`."
        print(line)
        return Part(TITLE, [], [line])
    version = importlib.import_module("sentence_transformers").__version__
    with fresh_store():
        towers, said = two_tower(data, runs)
        pairs, cross = cross_encoder(data, runs)
        encoded, last = encoding(data, runs)
    setting = (
        f"sentence-transformers {version} (`pip install {EXTRA}`), its own trainers on the model's "
        "own folder; all parameters train, dropout off and no clipping on both sides, AdamW, fp32. "
        "After each of its steps follows one of ours."
    )
    return Part(TITLE, towers + pairs + encoded, [setting, said, cross, last])


TITLE, EXTRA = "sentence-transformers", '"sentence-transformers[train]"'


def two_tower(data: Path, runs: int) -> tuple[list[dict[str, Any]], str]:
    """Pairs of a history's titles as one text and the next title, in-batch softmax."""
    words = ["architecture.user=text", "architecture.heads=false", *WIDE]
    ours = Ours(data, words)
    # Neither a repeated target nor one that another user is known to like: there both losses agree.
    keys = [key for key in ours.batches(100) if bool(ours.keep(ours.batch(key)).all())]
    if not keys:
        raise RuntimeError("no batch without a repeated or known target")
    batch = ours.batch(keys[0])
    users = user_texts(ours, batch)
    targets = [ours.model.parts.texts[i] for i in batch.plan.items[batch.candidates[:, 0]].tolist()]
    st = importlib.import_module("sentence_transformers")
    model = st.SentenceTransformer(str(folder()), device="cpu")
    model.max_seq_length = LONGEST
    set_dropout(model, 0.0)
    losses = importlib.import_module("sentence_transformers.losses")
    loss = losses.MultipleNegativesRankingLoss(model)  # its scale of 20 is our temperature of 0.05
    rows = {"anchor": users, "positive": targets}
    args, trainer = st.SentenceTransformerTrainingArguments, st.SentenceTransformerTrainer
    both = train(trainer, args, model, loss, rows, ours, keys[0], runs)
    useful = sum(count(ours, users)) + sum(count(ours, targets))
    what = "A step on 32 pairs of history text and title"
    note = (
        f"**MultipleNegativesRankingLoss: {both.faster:.2f} times** as fast here. It pads each "
        "column to its longest text; here texts of similar length share a micro-batch. Both run "
        "the whole model forward and backward on every text, so that padding is all there is to "
        f"save: for each useful token it computes {both.theirs.places / useful:.2f} places, ours "
        f"{both.ours.places / useful:.2f}."
    )
    if both.ours.texts > both.theirs.texts:
        note += (
            f" Ours encodes {both.ours.texts} texts where {both.theirs.texts} are needed: also the "
            "titles of the histories one by one, which nothing reads here."
        )
    exact = apart(both.found, both.right)
    return table(what, both, exact, len(users) + len(targets), useful), note


def cross_encoder(data: Path, runs: int) -> tuple[list[dict[str, Any]], str]:
    """Pairs of a user's text and a candidate in one sequence, binary cross-entropy."""
    words = [
        *("architecture=cross_encoder", "objective=bce", "objective.negatives=3", *WIDE),
        *("trainer.batch_size=8", "evaluation.protocol=candidates", "evaluation.max_cases=8"),
    ]
    ours = Ours(data, words)
    keys = [key for key in ours.batches(100) if all_count(ours, ours.batch(key))]
    if not keys:
        raise RuntimeError("no batch in which every pair counts")
    batch = ours.batch(keys[0])
    users, texts = user_texts(ours, batch), ours.model.parts.texts
    items = batch.plan.items[batch.candidates]
    width = items.shape[1]
    rows = {
        "query": [text for text in users for _ in range(width)],
        "item": [texts[i] for i in items.flatten().tolist()],
        "label": batch.labels.flatten().tolist(),
    }
    st = importlib.import_module("sentence_transformers.cross_encoder")
    losses = importlib.import_module("sentence_transformers.cross_encoder.losses")
    model = st.CrossEncoder(str(folder()), num_labels=1, max_length=LONGEST, device="cpu")
    set_dropout(model, 0.0)
    loss = losses.BinaryCrossEntropyLoss(model)
    args, trainer = st.CrossEncoderTrainingArguments, st.CrossEncoderTrainer
    both = train(trainer, args, model, loss, rows, ours, keys[0], runs)
    raw = [[n - 2 for n in count(ours, rows[name])] for name in ("query", "item")]
    lengths = compute_pair_lengths(ours.model.encoder, raw[0], raw[1])
    useful = sum(lengths)
    note = (
        f"**CrossEncoder, BinaryCrossEntropyLoss: {both.faster:.2f} times** as fast here: for each "
        f"useful token it computes {both.theirs.places / useful:.2f} places, ours "
        f"{both.ours.places / useful:.2f}. The heads differ (one linear map on the pooled first "
        "token there, the cosine of both spans and an MLP here), so that the losses are not to be "
        "compared."
    )
    what = "A step on 32 joint pairs of history text and candidate (8 users, 4 candidates)"
    return table(what, both, {}, len(lengths), useful), note


def all_count(ours: Ours, batch: Batch) -> bool:
    """Whether the loss counts every pair: none is missing, and no negative is a known positive."""
    items = batch.plan.items[batch.candidates.clamp(min=0)]
    known = ours.model.parts.around(ours.model.score).is_known_each(batch.users, items)
    return bool((batch.candidates >= 0).all()) and not bool((known & (batch.labels == 0)).any())


def encoding(data: Path, runs: int) -> tuple[list[dict[str, Any]], str]:
    """Titles to vectors, in evaluation mode."""
    ours = Ours(data, ["tuning=full", f"data.max_tokens={LONGEST}"])
    encoder, catalog = ours.model.encoder, ours.model.encoding.catalog
    if catalog is None:
        raise RuntimeError("this recommender reads no tokens")
    texts = list(ours.model.parts.texts[:TITLES])
    tokens = catalog.gather_tokens(torch.arange(TITLES))
    st = importlib.import_module("sentence_transformers")
    model = st.SentenceTransformer(str(folder()), device="cpu")
    model.max_seq_length = LONGEST
    ours.model.eval()

    def theirs() -> Tensor:
        made: Tensor = model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
        return made

    @torch.no_grad()
    def own() -> Tensor:
        return torch.nn.functional.normalize(encoder(tokens), dim=-1)

    times = alternate({"theirs": theirs, "ours": own}, runs)
    right = theirs().cpu()
    off = {"vectors apart": float((own() - right).norm() / right.norm())}
    what, useful = f"Encoding {TITLES:,} titles", sum(encoder.compute_lengths(tokens.sizes))
    rows = [
        row(what, THEIRS, times["theirs"], texts=TITLES, tokens=useful),
        row(what, "ours", times["ours"], texts=TITLES, tokens=useful, exact=off),
    ]
    factor = times["theirs"].median / times["ours"].median
    return rows, (
        f"**Encoding: {factor:.2f} times** as fast here. `encode` sorts by length as well, in "
        "batches of 32 texts, and tokenises at every call; here tokens are made once, and a "
        "micro-batch is bounded by its tokens."
    )


THEIRS = "sentence-transformers"


def train(
    trainer: Any,  # noqa: ANN401 - the library is imported only where it is installed
    arguments: Any,  # noqa: ANN401
    model: Any,  # noqa: ANN401
    loss: torch.nn.Module,
    rows: dict[str, list[Any]],
    ours: Ours,
    key: tuple[int, Any],
    runs: int,
) -> Both:
    """Its trainer on one batch, one step an epoch, our step behind each of its own."""
    kind = type(ours.model.encoder.model)
    pad = ours.model.encoder.specials.pad
    theirs_count, ours_count = Counter(pad), Counter(pad)
    unwatch = ours_count.watch(ours.model.encoder, kind)
    found = ours.gradients(ours.batch(key))
    unwatch()
    unwatch = theirs_count.watch(model, kind)
    seen: list[float] = []
    handle = loss.register_forward_hook(lambda m, i, out: seen.append(float(out.detach())))
    named = dict(model.named_parameters())
    shared = {
        name: p
        for name in ours.model.get_trained_parameters()
        for other, p in named.items()
        if other.endswith("." + name.removeprefix("_encoder.model."))
    }
    clock = Alternating(ours.step(lambda: ours.batch(key)), shared)
    datasets = importlib.import_module("datasets")
    with tempfile.TemporaryDirectory() as output:
        options = arguments(
            output_dir=output,
            per_device_train_batch_size=len(next(iter(rows.values()))),
            max_steps=runs + 1,
            learning_rate=2e-5,
            weight_decay=0.01,
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        table = datasets.Dataset.from_dict(rows)
        trainer(
            model=model, args=options, train_dataset=table, loss=loss, callbacks=[clock]
        ).train()
    handle.remove()
    unwatch()
    return Both(clock, theirs_count.over(runs + 1), ours_count, found, (seen[0], clock.gradients))


def user_texts(ours: Ours, batch: Batch) -> list[str]:
    """What our user texts are made of, as strings: titles, the latest first."""
    texts, rows = ours.model.parts.texts, batch.plan.items.tolist()
    return [
        " ; ".join(texts[rows[i]] for i in reversed(batch.history[q][:prefix].tolist()))
        for q, prefix in batch.query.tolist()
    ]


def count(ours: Ours, texts: list[str]) -> list[int]:
    """Tokens of each text, special tokens included."""
    if ours.made.tokenize is None:
        raise RuntimeError("this recommender reads no tokens")
    return list(ours.model.encoder.compute_lengths(len(ids) for ids in ours.made.tokenize(texts)))


def table(
    what: str, both: Both, exact: dict[str, float], texts: int, tokens: int
) -> list[dict[str, Any]]:
    """Both sides as rows."""
    theirs, own = both.theirs.columns(), both.ours.columns()
    clock = both.clock
    return [
        row(what, THEIRS, clock.theirs_time, texts=texts, tokens=tokens, extra=theirs),
        row(what, "ours", clock.ours_time, texts=texts, tokens=tokens, exact=exact, extra=own),
    ]


def folder() -> Path:
    """The folder of the model that all sides use."""
    return ModelFiles.locate(compose([]).encoder.model).folder
