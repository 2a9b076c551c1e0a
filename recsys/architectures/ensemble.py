"""Finished runs that score together: by their ranks, by weighted scores, or by a learned ranker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from recsys import lazy
from recsys.config.compose import option
from recsys.config.schema import BaselineConfig
from recsys.errors import ConfigError, nearest

if TYPE_CHECKING:
    from recsys.config.compose import RunConfig

BY = ("cold", "history")
"""What weights may be apart by."""


@dataclass
class Config(BaselineConfig):
    """Which runs, and how their scores become one.

    The members are finished runs on the same data, split and protocol. What is fitted is fitted on
    validation cases.
    """

    members: list[str] = option(
        [],
        "folders of finished runs; of several seeds, for all of them; or globs, as in "
        "[runs/ease-*, runs/sasrec-*], each for the newest run that it names",
    )
    combine: Literal["rrf", "weighted", "ranker"] = option(
        "weighted",
        "reciprocal rank fusion, which fits nothing; a weighted sum of normalised scores; or "
        "LightGBM's LambdaRank over scores and ranks",
    )
    normalize: Literal["auto", "zscore", "minmax", "rank"] = option(
        "auto",
        "how scores of a query come to one scale, with combine=weighted: mean 0 and deviation 1, "
        "from 0 to 1, or 1 / (k + rank); auto: the best on validation cases",
    )
    by: list[str] = option(
        [],
        "with combine=weighted, weights apart by cold (items without training events) and by "
        "history (its length), where that helps on validation cases",
    )
    k: float = option(
        60.0, "of 1 / (k + rank): the larger, the less the first ranks count", least=0
    )
    top: int = option(
        100, "best items of each member that validation and ranker look at, of a catalog", least=1
    )

    @property
    def member_runs(self) -> Sequence[str]:
        """Folders of the members."""
        return self.members

    def replace_member_runs(self, folders: Sequence[str]) -> None:
        """Names them by what their words stand for."""
        self.members = list(folders)

    def check(self, run: RunConfig) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: No member, one that is named twice, or an option of another combination.
        """
        if not self.members:
            raise ConfigError(
                "architecture.members is empty; name the folders of finished runs, as in "
                "architecture.members=[runs/ease-*,runs/sasrec-*]."
            )
        places: set[Path] = set()
        for member in self.members:
            place = Path(member).resolve()
            if place in places:
                raise ConfigError(f"architecture.members names {member} twice; leave one out.")
            places.add(place)
        for name in self.by:
            if name not in BY:
                raise ConfigError(
                    f"architecture.by: '{name}' is nothing that weights can be apart by."
                    f"{nearest(name, BY)}"
                )
        if self.combine != "weighted":
            for name in ("by", "normalize"):
                if getattr(self, name) not in ([], "auto"):
                    raise ConfigError(
                        f"architecture.{name} is of weighted scores, and architecture.combine is "
                        f"{self.combine}; leave it out, or set architecture.combine=weighted."
                    )


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.ensemble")
