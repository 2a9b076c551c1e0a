"""python -m recsys.recommend run=RUN user=ID | history=ID,ID | text=TEXT: what a run suggests.

Where items have windows of availability, only those that can be had now are suggested, or at the
moment that `at=` gives. A run that was trained with context is asked in one: hour and weekday are
those of that moment, and `context.device=phone` gives a column.
"""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)

from collections.abc import Mapping, Sequence
from dataclasses import replace

from recsys.config.compose import nearest
from recsys.config.flags import run_words
from recsys.config.help import ALL, format_command, format_names
from recsys.errors import ConfigError
from recsys.recommend import bulk
from recsys.recommend.choice import KEYS, open_model, parse_choice, parse_switch
from recsys.recommend.lines import format_rows, get_width
from recsys.trained.queries import Choice, Query
from recsys.trained.run import TrainedRun
from recsys.words import require_count, split_single_words

ASKS = ("user", "history", "text")
_EMPTY = {
    "user": ("user", "give an id, as in user=7"),
    "history": ("item", "give ids with a comma between two of them, as in history=7,12"),
    "text": ("text", 'give what is looked for, as in text="red lamp"'),
}
CONTEXT = "context."
OWN = ("k", *KEYS, "because")
USAGE = (
    "usage: python -m recsys.recommend run=FOLDER|last|folder=BUNDLE "
    "user=ID|history=ID,ID|text=TEXT|users=all|users=FILE [key=value ...]"
)
WORDS = (
    ("run=FOLDER", "of a finished run; last: the newest one; a glob: the newest of those"),
    ("folder=BUNDLE", "in place of run=: a bundle, which python -m recsys.export writes"),
    ("user=ID", "what a user of the data may like next"),
    ("history=ID,ID", "what goes with these items, the latest one last"),
    ("text=TEXT", 'what goes with a text, as in text="red lamp"'),
    ("k=10", "how many items"),
    (
        "at=now",
        "the moment, such as 2024-05-01T12:00 (UTC): items with available_from or available_until "
        "are suggested only where they can be had then",
    ),
    (
        "where=EXPRESSION",
        "which items, by their columns, as in where=\"year >= 1990 and genres contains 'Comedy'\": "
        "=, !=, <, <=, >, >=, contains and in (...), with and, or, not; texts are quoted",
    ),
    ("columns=NAME,NAME", "further columns of the items to show, such as year,genres"),
    ("exclude_seen=true", "false: also what someone had already"),
    (
        "diversity=0",
        "0 to 1: how unlike each other the items are to be (maximal marginal relevance); scores "
        "stay those of the model",
    ),
    (
        "retriever=FOLDER",
        "another run over the same items, or a bundle, which proposes those that this one ranks",
    ),
    ("candidates=100", "how many items are proposed, where not all are ranked"),
    (
        "because=true|false",
        "beside each item, what of the history speaks for it; left out: where that is read off the "
        "score; true: also where the model is asked once more without each item of the history",
    ),
    (
        "items=FILE",
        "further items, ranked by their texts: a column item, and text or the columns that the "
        "run's texts are made of; one that is there already gets this text",
    ),
    (
        f"{CONTEXT}COLUMN=VALUE",
        "of a run with architecture.context, which also knows the hour and weekday of the moment, "
        f"as in {CONTEXT}device=phone; a column that is not given is unknown",
    ),
    ("output=runs", "where run=last looks; with users=, that is runs="),
    *bulk.WORDS,
)
MAIN = {"run", "folder", "user", "history", "text", "users", "k", "where", "items", "output"}
"""Keys that the short help has."""


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    return run_words(
        argv,
        _format_usage,
        lambda words: bulk.write(words) if bulk.is_bulk(words) else recommend(_parse_words(words)),
    )


def _format_usage(words: Sequence[str]) -> str:
    """What `--help` prints; with `all`, what each key does."""
    if ALL in words:
        return format_command(USAGE, WORDS)
    keys = {word: word.partition("=")[0] for word, _ in WORDS}
    short = [(word, text) for word, text in WORDS if keys[word] in MAIN]
    more = format_names("keys: ", (f"{keys[word]}=" for word in keys if keys[word] not in MAIN))
    return "\n".join(
        [format_command(USAGE, [*short, (f"--help {ALL}", "what each key does")]), "", *more]
    )


def _parse_words(argv: Sequence[str]) -> dict[str, str]:
    """The words as given."""
    return parse_query_words(argv, OWN, {"k": 1, "candidates": 1})


def parse_query_words(
    argv: Sequence[str], own: Sequence[str], counts: Mapping[str, int]
) -> dict[str, str]:
    """The words of a command that asks a run something, as given: an id such as 007 stays text.

    Args:
        argv: What was typed.
        own: Keys of the command beside those of every such command.
        counts: The least value of each of its keys that is a whole number.

    Raises:
        ConfigError: A key is unknown or there twice, or what is asked for is missing.
    """
    known = ("run", "folder", *ASKS, *own, "at", f"{CONTEXT}COLUMN", "output")
    out = split_single_words(argv, "user=7")
    for key, value in out.items():
        if key == "context":
            raise ConfigError(
                f"'{key}={value}' names no column; give each a word of its own, as in "
                f"{CONTEXT}device=phone."
            )
        if key not in known and not key.startswith(CONTEXT):
            raise ConfigError(f"'{key}={value}' is not understood.{nearest(key, known)}")
    if sum(of in out for of in ("run", "folder")) != 1 or sum(ask in out for ask in ASKS) != 1:
        raise ConfigError(
            "give run= or folder=, and one of user=, history= and text=; --help says more."
        )
    for ask, (what, remedy) in _EMPTY.items():
        parts = out.get(ask, "-").split(",") if ask == "history" else [out.get(ask, "-")]
        if not all(part.strip() for part in parts):
            raise ConfigError(f"{ask}= names no {what}; {remedy}.")
    for key, least in counts.items():
        if key in out:
            require_count(key, out[key], least)
    return out


@command.pause_collection()
def recommend(words: dict[str, str]) -> list[str]:
    """One line an item: rank, score, id and text, then the columns asked for.

    No line is longer than the terminal; where the output is none, lines are whole.

    Raises:
        ConfigError: The run cannot be read, the data has changed since, or the run knows nothing
            of a context that is given.
        DataError: An id is unknown, or the moment is no time.
    """
    runs = words.get("output", "runs")
    model = open_model(words, runs)
    answer = model.answer_quickly if isinstance(model, TrainedRun) else model.answer
    context = {k.removeprefix(CONTEXT): v for k, v in words.items() if k.startswith(CONTEXT)}
    history = (
        tuple(each.strip() for each in words["history"].split(",")) if "history" in words else None
    )
    query = Query(words.get("user"), history, words.get("text"))
    # Left to itself, it says why where that costs nothing.
    because = parse_switch(words, "because", True) if "because" in words else None
    choice = replace(parse_choice(words, runs), because=because)
    rows = answer([query], int(words.get("k", "10")), words.get("at", "now"), context, choice)
    if rows.is_empty():
        from recsys.trained.lookup import print_note

        print_note(_describe_nothing(choice))
    return format_rows(rows, choice.columns, get_width())


def _describe_nothing(choice: Choice) -> str:
    """Why there is no line."""
    if choice.where is not None:
        return f"no item that may be recommended fits where={choice.where}."
    return "no item is left to recommend" + (
        "; exclude_seen=false gives also what someone had already." if choice.exclude_seen else "."
    )


if __name__ == "__main__":
    command.run_command(main)
