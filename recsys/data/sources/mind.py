"""MIND, Microsoft's news data set: impressions with clicks, small and large.

Page: https://msnews.github.io/ (Wu et al., ACL 2020), archives MINDsmall_train, MINDsmall_dev,
MINDlarge_train, MINDlarge_dev and MINDlarge_test; no checksums are known. Titles in other
languages: GitHub, "andreeaiana/xMIND" (Iana et al. 2024).

A row of the interactions is one news item of an impression, with `impression` (part and number: the
numbers begin anew in each part) and a rating of 1 for a click and 0 without one: set
`data.positive_from=1`. Clicks of a user's history are rows without an impression.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from recsys.config.schema import SourceConfig, SplitMethod, option
from recsys.data.readers import mind_events, tabular
from recsys.data.readers.mind_behaviors import read_behaviors
from recsys.data.readers.templates import fill_template
from recsys.data.tables import Tables, check_tables
from recsys.errors import DataError

_WHAT = (
    "the folders MINDsmall_train and MINDsmall_dev (or MINDlarge_*), each with behaviors.tsv and "
    "news.tsv, of https://msnews.github.io/"
)
_NEWS = ["item", "category", "subcategory", "title", "abstract", "url", "entities", "mentions"]
_PARTS = {"train": ("train",), "val": ("dev", "valid"), "test": ("test",)}


@dataclass
class Config(SourceConfig):
    """Where the parts lie."""

    default_split: ClassVar[SplitMethod] = "given"

    path: str = option(
        "",
        "Folder of the unpacked parts, each in a folder whose name ends in train, dev "
        "or test; or the one folder of the two files.",
    )
    behaviors: str = option("behaviors.tsv", "File name of the impressions; .gz too.")
    news: str = option("news.tsv", "File name of the news; .gz too.")
    titles: str = option(
        "",
        "xMIND file (nid, title, abstract; .tsv, .gz or .zip) that takes the place of "
        "titles and abstracts; empty: none.",
    )
    held_out: float = option(
        0.1,
        "Share of impressions, the latest ones, that stands in for a part which is "
        "missing: validation, or both held-out parts.",
    )
    need_history: bool = option(False, "Leave out impressions of users without a history.")
    item_text: str = option(
        "{title}. {abstract}", "Template over title, abstract, category, subcategory."
    )


def _find_folders(path: Path, cfg: Config) -> dict[str, Path]:
    """Part to folder; "train" is the folder itself where it has the files."""
    if any((path / name).is_file() for name in (cfg.behaviors, f"{cfg.behaviors}.gz")):
        return {"train": path}
    found = {}
    for part, ends in _PARTS.items():
        folders = [f for f in sorted(path.iterdir()) if f.is_dir() and f.name.endswith(ends)]
        if len(folders) > 1:
            raise DataError(f"{path} holds {len(folders)} folders for {part}; leave one of them.")
        if folders:
            found[part] = folders[0]
    if "train" not in found:
        raise DataError(f"{path} holds no {cfg.behaviors} and no folder *train; fetch {_WHAT}.")
    return found


def _read_news(folders: dict[str, Path], cfg: Config) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """All news of the parts, the first of several with one id, and what was done."""
    files = [tabular.find_file(f, cfg.news, f"{cfg.news}.gz") for f in folders.values()]
    news = pl.concat([tabular.read_delimited(file, "\t", _NEWS) for file in files])
    news = news.drop("url", "entities", "mentions")
    news = news.unique("item", keep="first", maintain_order=True)
    notes: tuple[str, ...] = ()
    if cfg.titles:
        other = mind_events.read_translations(Path(cfg.titles))
        both = other.join(
            news.select("item", "category", "subcategory"),
            on="item",
            how="left",
            maintain_order="left",
        )
        notes = (f"mind: titles and abstracts of {both.height} news come from {cfg.titles}.",)
        news = both
    return news.with_columns(fill_template(news, cfg.item_text)), notes


def load(cfg: Config) -> Tables:
    """Reads all parts; the column `split` says train, val or test.

    Where the test part has no labels, its impressions are counted and left out, and dev is the test
    part. An impression keeps the news that have a text, and stays if a click and a news item
    without one are among them: else nothing can be ranked.

    Raises:
        DataError: A file is missing or damaged, or a line is none of MIND's.
        ConfigError: The template names an unknown column.
    """
    folders = _find_folders(tabular.check_folder(cfg.path, _WHAT), cfg)
    items, notes = _read_news(folders, cfg)
    known = items.filter(pl.col("text").str.strip_chars() != "")
    files = {
        part: tabular.find_file(f, cfg.behaviors, f"{cfg.behaviors}.gz")
        for part, f in folders.items()
    }
    found, more = mind_events.assign_parts(read_behaviors(files, known["item"]), cfg.held_out)
    events, users, last = mind_events.make_events(found, known["item"], cfg.need_history)
    notes = (*notes, *more, *last)
    if known.height < items.height:
        notes = (*notes, f"mind: {items.height - known.height} news have no text: left out.")
    return check_tables(Tables(events, known, users, notes), cfg.path)
