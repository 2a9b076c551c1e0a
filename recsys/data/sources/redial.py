"""ReDial: dialogues in which someone seeks a film, and another one recommends some.

Page: https://redialdata.github.io/website/ (Li et al., NeurIPS 2018), train_data.jsonl and
test_data.jsonl; the part valid is that of later projects (GitHub, "Lancelot39/KGSF", Zhou et al.
2020). Genres and plots: id2info.json of GitHub, "RUCAIBox/iEvaLM-CRS" (Wang et al. 2023). No
checksums are known.

An interaction is a film of a dialogue. `event` says what the seeker thinks of it (liked, disliked,
unsaid), `rating` the same (1, 0 and 0.5: `data.positive_from=0.5` leaves the disliked out), `by`
who names it (seeker, recommender) and `seen` whether the seeker knew it; the seeker's own answers
count before the recommender's. They are given when the dialogue is over: what is known of a film at
a later turn is what was said, so that by default every film is one that was named, liked or not.
There are no times, but an order: part, then number of the dialogue, then turn. A film that is
written without its mark (@1234) is not recognised.

With cut=he (He et al., Large Language Models as Zero-Shot Conversational Recommenders, CIKM 2023)
messages of one side in a row are a turn. Each film of a recommender's turn is a target, ranked
among all films that have not been named; one that was named before is counted apart. A query's text
is the dialogue before that turn, its history the films that were named in it. He et al. count the
films that they found in DBpedia alone (3,552 turns with 4,778 films of test_data.jsonl, of 3,671
with 4,969), and iEvaLM the turns before which it found a name (3,341 with 4,499); here every film
with a mark counts. `listed` names a file of the turns and films that count, for such a cut.

With cut=mentions a film counts where it is named first, whoever does; the films of one turn are a
`basket`, and none of them is the past of another. A user's text are the turns before the first
film. `review` holds the turns between a film and the one before it: with `data.user_reviews=N` the
text ends before the turn of the N-th film, and none of these N is a target. As only training events
are read so, this is for data.split=leave_one_out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl

from recsys.config.schema import DataOptions, Repeated, SourceConfig, SplitMethod, option
from recsys.data.readers import tabular
from recsys.data.readers.dialogues import (
    SAID,
    DialogueReader,
    check_named,
    check_split,
    describe_turns,
    hold_out_last,
    make_users,
    read_listed_turns,
)
from recsys.data.readers.redial_files import (
    MARK,
    Dialogue,
    make_turns,
    parse_object,
    read_dialogues,
    write_titles,
)
from recsys.data.readers.templates import fill_template, join_values
from recsys.data.tables import Tables, check_tables
from recsys.errors import ConfigError, DataError

_WHAT = "train_data.jsonl and test_data.jsonl of https://redialdata.github.io/website/"
_PARTS = {"train": "train", "valid": "val", "test": "test"}
_LIKED = {"0": "disliked", "1": "liked"}
_SEEN = {"0": "unseen", "1": "seen"}
_RATING = {"disliked": 0.0, "unsaid": 0.5, "liked": 1.0}
_FACTS = ("genre", "director", "writer", "star", "plot")


@dataclass
class Config(SourceConfig):
    """Where the files lie, who the user is, and which turns are its text."""

    default_split: ClassVar[SplitMethod] = "given"

    path: str = option(
        "",
        "Folder of train, valid and test (.jsonl, _data.jsonl, .gz too) and, where "
        "there, id2info.json.",
    )
    user: Literal["dialogue", "seeker"] = option(
        "dialogue",
        "A dialogue, as its seeker is a worker who asks for something else in each; "
        "or the seeker with all dialogues.",
    )
    turns: Literal["both", "seeker"] = option("both", "Whose turns are read as a user's text.")
    cut: Literal["he", "mentions"] = option(
        "he",
        "What a case is: a recommender's turn, after the dialogue before it; or a film where it is "
        "named first, by whomever.",
    )
    targets: Literal["recommender", "all"] = option(
        "recommender", "With cut=he: whose films are asked for; those of all turns, or these."
    )
    listed: str = option(
        "",
        "With cut=he: file with the test turns that count and their films, as iEvaLM's "
        "eval_test_data_processed.jsonl (.gz too); empty: all of them.",
    )
    speakers: bool = option(False, "Whether each turn of a text begins with who speaks.")
    text_words: int = option(
        1000, "How many of the latest words of a dialogue a text has at most.", least=1
    )
    held_out: float = option(
        0.1, "Share of training dialogues, the last, for a part that is missing."
    )
    item_text: str = option(
        "{title} ({year}); {genre}; {director}; {star}; {plot}",
        "Template over title, year and id2info's genre, director, writer, star, plot.",
    )

    @property
    def repeated(self) -> Repeated:
        """He et al. count films apart that were named before."""
        return "alike" if self.cut == "mentions" else "apart"

    @property
    def query_column(self) -> str | None:
        """The dialogue up to a turn."""
        return None if self.cut == "mentions" else SAID

    def apply_data_options(self, data: DataOptions) -> None:
        """Refuses to split dialogues."""
        if self.cut != "mentions":
            check_split("redial", data.split)


def _read_dialogues(folder: Path, held_out: float) -> tuple[list[Dialogue], list[str], list[str]]:
    """All dialogues in order, the part that each is in, and what was decided.

    Raises:
        DataError: The folder holds nothing to train on.
        ConfigError: `held_out` leaves nothing to train on, or holds nothing out.
    """
    found: dict[str, Dialogue] = {}
    count = 0
    for word, part in _PARTS.items():
        names = [f"{word}{end}" for end in (".jsonl", ".jsonl.gz", "_data.jsonl", "_data.jsonl.gz")]
        if any((folder / name).is_file() for name in names):
            for each in read_dialogues(tabular.find_file(folder, *names), part):
                count += 1
                # One that is held out may not train as well: the later part counts.
                found[each.number] = each
    order = list(_PARTS.values())
    dialogues = sorted(found.values(), key=lambda d: (order.index(d.part), int(d.number)))
    parts, turns = [d.part for d in dialogues], sum(len(d.turns) for d in dialogues)
    notes = [f"redial: {len(dialogues)} dialogues with {turns} turns."]
    if count > len(dialogues):
        again = count - len(dialogues)
        notes.append(f"redial: {again} dialogues come again: that of the later part counts.")
    if "train" not in parts:
        if "val" not in parts:
            raise DataError(f"{folder} holds no train.jsonl or valid.jsonl; fetch {_WHAT}.")
        parts = ["train" if part == "val" else part for part in parts]
        notes.append("redial: there is no part train; the dialogues of valid train.")
    notes += hold_out_last(parts, held_out, "redial")
    return dialogues, parts, notes


def _extract_films(
    dialogue: Dialogue, names: Mapping[str, str], whose: str
) -> Iterator[dict[str, Any]]:
    """A row for each film where it is named first, with the turns since the film before it."""
    known: set[str] = set()
    start = 0
    for turn, (speaker, text) in enumerate(dialogue.turns):
        for film in MARK.findall(text):
            if film in known or film not in names:
                continue
            known.add(film)
            said = [
                write_titles(words, names)
                for who, words in dialogue.turns[start:turn]
                if whose == "both" or who == dialogue.seeker
            ]
            start = turn
            form = parse_object(dialogue.forms.get(film))
            offered = form.get("suggested", speaker != dialogue.seeker) in (1, "1")
            yield {
                "item": film,
                **_describe_film(dialogue, film),
                "by": "recommender" if offered else "seeker",
                "dialogue": dialogue.number,
                "turn": turn,
                "basket": f"{dialogue.number}-{turn}",  # films of one turn are named at once
                "review": " ".join(" ".join(said).split()),
            }


def _describe_film(dialogue: Dialogue, film: str) -> dict[str, Any]:
    """What was answered of a film when the dialogue was over."""
    form = parse_object(dialogue.forms.get(film))
    event = _LIKED.get(str(form.get("liked")), "unsaid")
    seen = _SEEN.get(str(form.get("seen")), "unsaid")
    return {"rating": _RATING[event], "event": event, "seen": seen}


def _format_fact(value: object) -> str | None:
    """A fact as text; a list of none is known to be empty."""
    return None if value is None else join_values(value) or ""


def _make_items(
    info: Mapping[str, Mapping[str, object]], dialogues: list[Dialogue]
) -> pl.DataFrame:
    """All films of id2info, then those that are only named; facts as text."""
    films: dict[str, dict[str, str | None]] = {}
    for key, fields in info.items():
        films[key] = {"item": key, "title": str(fields.get("name") or "")}
        films[key] |= {name: _format_fact(fields.get(name)) for name in _FACTS}
    for dialogue in dialogues:
        for key, name in dialogue.names.items():
            film = films.setdefault(key, {"item": key, "title": name, **dict.fromkeys(_FACTS)})
            film["title"] = film["title"] or name
    schema = dict.fromkeys(("item", "title", *_FACTS), pl.String)
    return pl.DataFrame(list(films.values()), schema=schema)


def load(cfg: Config) -> Tables:
    """Reads the dialogues of all parts and, where it is there, id2info.

    Raises:
        DataError: A file is missing or damaged, or a line holds no dialogue.
        ConfigError: The template names an unknown column, or `held_out` does not fit.
    """
    folder = tabular.check_folder(cfg.path, _WHAT)
    dialogues, parts, notes = _read_dialogues(folder, cfg.held_out)
    facts = ("id2info.json", "id2info.json.gz")
    there = any((folder / name).is_file() for name in facts)
    info = tabular.read_json_by_id(tabular.find_file(folder, *facts)) if there else {}
    if not there:
        notes.append("redial: there is no id2info.json; a film's text is its title and year.")
    items = _make_items(info, dialogues)
    names: dict[str, str] = dict(items.select("item", "title").iter_rows())
    rows: list[dict[str, Any]] = []
    if cfg.listed and cfg.cut == "mentions":
        raise ConfigError("data.source.listed is of turns, and cut=mentions has none; use cut=he.")
    tested = [d for d, part in zip(dialogues, parts, strict=True) if part == "test"]
    own = {each.number: make_turns(each, names) for each in tested} if cfg.listed else {}
    listed = read_listed_turns(Path(cfg.listed), own, names) if cfg.listed else None
    reader = DialogueReader(cfg.targets, cfg.turns, cfg.speakers, cfg.text_words)
    now: dict[str, str] = {}
    for dialogue, part in zip(dialogues, parts, strict=True):
        user = dialogue.number if cfg.user == "dialogue" else dialogue.seeker
        if cfg.cut == "mentions":
            found = _extract_films(dialogue, names, cfg.turns)
        else:
            turns = make_turns(dialogue, names)
            now[user] = reader.write_text(turns)
            found = (
                {**row, **_describe_film(dialogue, row["item"])}
                for row in reader.list_events(
                    dialogue.number,
                    turns,
                    None if listed is None or part != "test" else listed.get(dialogue.number, {}),
                )
            )
        rows += [{"user": user, "split": part, **row} for row in found]
    if not rows:
        raise DataError(f"{folder}: no dialogue names a film (@1234); fetch {_WHAT}.")
    events = pl.DataFrame(rows, infer_schema_length=None)
    silent = len(dialogues) - events["dialogue"].n_unique()
    if silent:
        notes.append(f"redial: {silent} dialogues name no film: left out.")
    if cfg.cut == "mentions":
        begins = events["user"].is_first_distinct()
        users = events.filter(begins).select("user", pl.col("review").alias("text"))
        events = events.with_columns(
            pl.when(begins).then(pl.lit("")).otherwise("review").alias("review")
        )
    else:
        users = make_users(events, now)
        notes += describe_turns("redial", rows)
    marks = (mark for d in dialogues for _, text in d.turns for mark in MARK.findall(text))
    unknown = sum(mark not in names for mark in marks)
    if unknown:
        notes.append(f"redial: {unknown} marks stand for no film that has a name: not read.")
    items = tabular.split_year(items)
    items = items.with_columns(fill_template(items, cfg.item_text))
    events, items, more = tabular.drop_undescribed(events, items, "redial", folder)
    if cfg.cut != "mentions":
        check_named(events, folder, cfg.targets)
    users = users.filter(pl.col("user").is_in(events["user"].unique().to_list()))
    return check_tables(Tables(events, items, users, (*notes, *more)), str(folder))
