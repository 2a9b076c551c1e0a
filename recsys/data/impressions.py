"""From lines with a history and an impression to single events, as MIND's files need it.

Histories have no times. A click of one lies before the impression that first tells of it: one
millisecond apart from the next, as near to the impression as that allows. It belongs to the part
that its user had reached by then, so that a history never makes a held-out target of what every
method may see.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import polars as pl

from recsys.data import reading
from recsys.errors import ConfigError, DataError

_COLUMNS = ["impression", "user", "moment", "history", "shown"]
_MOMENT = "%m/%d/%Y %I:%M:%S %p"
_ROLES = ("train", "val", "test")


def translated(path: Path) -> pl.DataFrame:
    """Item, title and abstract of an xMIND file: .tsv, .tsv.gz or the .zip it comes in.

    Raises:
        DataError: It is missing, damaged, or lacks a column.
    """
    if path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                inside = [n for n in archive.namelist() if n.endswith("news.tsv")]
                if len(inside) != 1:
                    raise DataError(f"{path} holds {len(inside)} files news.tsv; give one of them.")
                text = archive.read(inside[0]).decode("utf-8-sig")
        except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read ({error}); fetch it again.") from error
    else:
        text = reading.content(path)
    rows = [line.split("\t") for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    head, body = rows[0] if rows else [], rows[1:]
    if head[:3] != ["nid", "title", "abstract"]:
        raise DataError(f"{path} does not begin with the columns nid, title, abstract.")
    schema = {"item": pl.String, "title": pl.String, "abstract": pl.String}
    cells = [(row[0], row[1] if len(row) > 1 else "", " ".join(row[2:])) for row in body]
    frame = pl.DataFrame(cells, schema=schema, orient="row")
    return frame.unique("item", keep="first", maintain_order=True)


def behaviors(path: Path, part: str) -> pl.DataFrame:
    """The impressions of a part.

    Args:
        path: behaviors.tsv: number, user, time, history, news shown (with -1 or -0 at the end if
            the part has labels).
        part: Its name: train, val or test.

    Returns:
        impression, user, time (ms), history and shown (both lists of text, `shown` with the
        labels), part, labelled.

    Raises:
        DataError: The file is missing or damaged, or a time cannot be read.
    """
    frame = reading.delimited(path, "\t", _COLUMNS)
    time = frame["moment"].str.to_datetime(_MOMENT, strict=False, time_unit="ms")
    for name, bad in (("time", time.is_null()), ("user", frame["user"].is_null())):
        if bad.any():
            row = int(bad.arg_true()[0])
            raise DataError(f"{path}: line {row + 1} has no {name} that can be read; fetch again.")
    lists = [
        pl.col(name).fill_null("").str.extract_all(r"\S+").alias(name)
        for name in ("history", "shown")
    ]
    return frame.with_columns(*lists).select(
        pl.concat_str(pl.lit(f"{part}-"), pl.col("impression")).alias("impression"),
        "user",
        time.dt.epoch("ms").alias("time"),
        "history",
        "shown",
        pl.lit(part).alias("part"),
        pl.col("shown")
        .list.eval(pl.element().str.contains(r"-[01]$"))
        .list.all()
        .alias("labelled"),
    )


def parts(frame: pl.DataFrame, held_out: float) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Decides what is trained on, validated and tested.

    Args:
        frame: As `behaviors`, of all parts.
        held_out: Share of training impressions, the latest, for each part that is missing.

    Returns:
        The impressions with labels, with `split`; and what was decided.

    Raises:
        ConfigError: `held_out` leaves nothing to train on, or holds nothing out.
        DataError: The training part has no labels.
    """
    notes = []
    labelled = frame.filter(pl.col("labelled") & (pl.col("shown").list.len() > 0))
    if labelled.height < frame.height:
        notes.append(
            f"mind: {frame.height - labelled.height} impressions have no labels: left out."
        )
    there = set(labelled["part"].unique())
    if "train" not in there:
        raise DataError(
            "mind: no impression of the training part has labels (-1 or -0 at the end of each news "
            "item shown); set data.source.path to the folder of MINDsmall_train or MINDlarge_train."
        )
    split = pl.col("part")
    if "test" not in there and "val" in there:
        notes.append("mind: there is no test part with labels; dev is the test part.")
        split = split.replace("val", "test")
        there = {*(there - {"val"}), "test"}
    labelled = labelled.with_columns(split.alias("split"))
    missing = [part for part in ("val", "test") if part not in there]
    if missing:
        if not 0 < held_out * len(missing) < 1:
            raise ConfigError(
                f"data.source.held_out is {held_out:g}, for {' and '.join(missing)} each; set it "
                f"above 0 and below {1 / len(missing):g}."
            )
        time = np.sort(labelled.filter(split="train")["time"].to_numpy())
        train = pl.lit("train")
        for place, part in enumerate(missing):
            share = held_out * (len(missing) - place)
            cut = time[min(int(round(len(time) * (1 - share), 6)), len(time) - 1)]
            train = pl.when(pl.col("time") >= int(cut)).then(pl.lit(part)).otherwise(train)
        labelled = labelled.with_columns(
            pl.when(split="train").then(train).otherwise("split").alias("split")
        )
        notes.append(
            f"mind: the latest {held_out:g} of the training impressions are the part for "
            f"{' and as many for '.join(missing)}."
        )
    return labelled, tuple(notes)


def _histories(frame: pl.DataFrame) -> pl.DataFrame:
    """The clicks that only histories tell of, in their order: user, item, time, split.

    Args:
        frame: user, time, split, history, clicked (lists of text), sorted by time within users.
    """
    told: list[tuple[str, list[str], int, int, str]] = []
    for user, own in groupby(frame.iter_rows(), key=itemgetter(0)):
        known: Counter[str] = Counter()
        reached, before, last = "train", 0, None
        for _, time, split, history, clicked in own:
            if history != last:
                left, new = known.copy(), []
                for item in history:
                    if left[item] > 0:
                        left[item] -= 1
                    else:
                        new.append(item)
                if new:
                    told.append((user, new, before, time - len(new), reached))
                known.update(new)
                last = history
            known.update(clicked)
            reached, before = max(reached, split, key=_ROLES.index), time
    schema: dict[str, pl.DataType] = {
        "user": pl.String(),
        "item": pl.List(pl.String()),
        "before": pl.Int64(),
        "first": pl.Int64(),
        "split": pl.String(),
    }
    clicks = pl.DataFrame(told, schema=schema, orient="row")
    clicks = clicks.with_columns(place=pl.int_ranges(pl.col("item").list.len()))
    clicks = clicks.explode("item", "place")
    time = pl.max_horizontal("before", pl.col("first") + pl.col("place"))
    return clicks.select("user", "item", time.alias("time"), "split")


def events(
    frame: pl.DataFrame, known: pl.Series, need_history: bool
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Single events of impressions and histories, with news that have a text.

    Args:
        frame: As `parts` returns.
        known: Ids of the news that have a text.
        need_history: Also leave out impressions without such a news item in the history.

    Returns:
        user, item, time, rating (1 click, 0 none), impression (null: of a history), split; and
        what was left out.
    """
    news = known.to_list()
    frame = frame.sort("user", "time", maintain_order=True)
    told = pl.col("history").list.filter(pl.element().is_in(news))
    rows = frame.select("user", "time", "impression", "split", "shown").explode("shown")
    rows = rows.with_columns(
        pl.col("shown").str.head(-2).alias("item"),
        pl.col("shown").str.tail(1).cast(pl.Float64).alias("rating"),
    )
    usable = rows.filter(pl.col("item").is_in(news))
    notes = []
    if usable.height < rows.height:
        notes.append(
            f"mind: {rows.height - usable.height} of {rows.height} candidates are news without a "
            "description: left out."
        )
    sides = usable.group_by("impression").agg(low=pl.min("rating"), high=pl.max("rating"))
    both = sides.filter(low=0, high=1)["impression"]
    kept = frame.filter(pl.col("impression").is_in(both.to_list()))
    kept = kept.with_columns(told.alias("history"))
    if need_history:
        kept = kept.filter(pl.col("history").list.len() > 0)
    if kept.height < frame.height:
        why = ", or no history" if need_history else ""
        notes.append(
            f"mind: {frame.height - kept.height} of {frame.height} impressions are left without "
            f"a click, or without anything else{why}: left out."
        )
    usable = usable.filter(pl.col("impression").is_in(kept["impression"].to_list()))
    clicked = (
        usable.filter(rating=1).group_by("impression", maintain_order=True).agg(clicked="item")
    )
    whole = kept.join(clicked, on="impression", how="left", maintain_order="left")
    past = _histories(whole.select("user", "time", "split", "history", "clicked")).with_columns(
        rating=pl.lit(1.0), impression=pl.lit(None, pl.String)
    )
    columns = ("user", "item", "time", "rating", "impression", "split")
    return pl.concat([past.select(columns), usable.select(columns)]), tuple(notes)
