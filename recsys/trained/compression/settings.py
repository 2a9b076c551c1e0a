"""What is to be made smaller, and by how much."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

from recsys.config.compose import RunConfig, get_choice_name, nearest
from recsys.errors import ConfigError
from recsys.evaluation.quantization import Precision
from recsys.words import parse_count

STATIC = "static"
"""In place of a number of layers: each token has a vector, whatever stands beside it."""

WIDTHS = (64, 128, 256)
"""Beside the whole width, those at which the vectors of a student are to be good."""


@dataclass(frozen=True)
class CompressionSettings:
    """How a run is made smaller.

    Attributes:
        layers: Layers of the encoder that are kept, "static", or None for all.
        width: Numbers of a vector that are kept, or None for all.
        vectors: As `architecture.vectors_as`.
        pool: As `architecture.pool`; None: as the run has it.
        steps: Of the distillation, where there is one.
        batch: Texts of a step.
        lr: Learning rate of the layers; that of the map behind them is ten times as high.
        seed: Draws the texts of a step.
    """

    layers: int | str | None = None
    width: int | None = None
    vectors: Precision = "fp32"
    pool: int | None = None
    steps: int = 300
    batch: int = 64
    lr: float = 1e-4
    seed: int = 0

    @staticmethod
    def parse(words: dict[str, str]) -> CompressionSettings:
        """From the words of a command, by key.

        Raises:
            ConfigError: A value is wrong.
        """
        plain = CompressionSettings()
        layers, width = words.get("layers", "all"), words.get("width", "full")
        vectors = words.get("vectors", plain.vectors)
        if vectors not in get_args(Precision):
            known = get_args(Precision)
            raise ConfigError(
                f"vectors={vectors} is none of {', '.join(known)}.{nearest(vectors, known)}"
            )
        if "pool" in words and vectors != "binary+int8":
            raise ConfigError(
                f"pool changes nothing: vectors is {vectors}, and items are scored again with "
                "binary+int8 alone; leave pool out, or set vectors=binary+int8."
            )
        return CompressionSettings(
            layers=layers if layers == STATIC else _parse("layers", layers, "all", f", {STATIC}"),
            width=_parse("width", width, "full"),
            vectors=vectors,  # type: ignore[arg-type]
            pool=_parse("pool", words.get("pool", "same"), "same"),
            steps=_parse_number("steps", words.get("steps", str(plain.steps)), 0),
            batch=_parse_number("batch", words.get("batch", str(plain.batch)), 2),
            lr=_parse_rate(words.get("lr", str(plain.lr))),
            seed=_parse_number("seed", words.get("seed", str(plain.seed)), 0),
        )

    @property
    def distils(self) -> bool:
        """Whether the encoder is another one, which learns from that of the run."""
        return self.layers is not None

    @property
    def changes(self) -> bool:
        """Whether anything becomes smaller."""
        return self.distils or self.width is not None or self.vectors != "fp32"

    def describe(self) -> str:
        """In a few words, as in "3 layers, width 128, int8"."""
        layers = "all layers" if self.layers is None else f"{self.layers} layers"
        parts = [self.layers if self.layers == STATIC else layers]
        parts.append("full width" if self.width is None else f"width {self.width}")
        return ", ".join([*map(str, parts), self.vectors])

    def summarize(self) -> dict[str, Any]:
        """What tells two compressions of a run apart, but for the seed."""
        about = asdict(self)
        trained = ("steps", "batch", "lr") if self.layers not in (None, STATIC) else ()
        return {k: about[k] for k in ("layers", "width", "vectors", "pool", *trained)}


def _parse(key: str, text: str, all_of: str, also: str = "") -> int | None:
    """A number from 1, or None for a word that means everything.

    Raises:
        ConfigError: It is neither.
    """
    if text == all_of:
        return None
    number = parse_count(text, 1)
    if number is None:
        raise ConfigError(f"{key}={text} is no number from 1; give one{also} or {all_of}.")
    return number


def _parse_number(key: str, text: str, least: int) -> int:
    number = parse_count(text, least)
    if number is None:
        raise ConfigError(f"{key}={text} is no whole number from {least}.")
    return number


def _parse_rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate < 1:
        raise ConfigError(f"lr={text} is no number between 0 and 1.")
    return rate


def check_compressible(run: RunConfig, settings: CompressionSettings, where: str) -> None:
    """Refuses a run whose item vectors are not of texts alone, before its data is read.

    Args:
        run: Its configuration.
        settings: What is to become of it.
        where: Its folder, for a sentence.

    Raises:
        ConfigError: It is one; the sentence names the key.
    """
    from recsys.architectures.two_tower import Config

    own = run.architecture
    if not isinstance(own, Config):
        raise ConfigError(
            f"{where} is {get_choice_name(own)}, and what is made smaller is a run of two_tower; "
            "name one of those."
        )
    odd = {
        "architecture.item": own.item != "text",
        "architecture.user": own.user != "history",
        "architecture.towers": own.towers != "shared",
        "architecture.categories": bool(own.categories),
    }
    for key, wrong in odd.items():
        if wrong:
            value = getattr(own, key.partition(".")[2])
            raise ConfigError(
                f"{where} has {key}={value}, and vectors are made smaller where both users and "
                "items have them of item texts alone (item=text, user=history, towers=shared, no "
                "categories); name such a run."
            )
    if settings.width is not None:
        for key, wrong in {
            f"architecture.history={own.history}": own.history in ("causal", "gru"),
            "architecture.score=mlp": own.score == "mlp",
            f"architecture.context={own.context}": bool(own.context),
        }.items():
            if wrong:
                raise ConfigError(
                    f"width={settings.width}: {where} has {key}, which has learned weights of the "
                    "full width; leave width out."
                )
    if own.vectors_as != "fp32":
        raise ConfigError(
            f"{where} has its vectors stored as {own.vectors_as} already; name the run that it was "
            "made of."
        )
    if not run.evaluation.test:
        raise ConfigError(
            f"{where} has evaluation.test=false, and what is made of it is tested as it was; name "
            "a run with a test."
        )
