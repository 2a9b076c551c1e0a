"""python -m recsys.explain run=RUN user=ID | history=ID,ID | text=TEXT item=ID: why that item.

It says what each item of the history adds to the score, exactly where the score is such a sum, and
with tokens=true what each word of the texts adds.
"""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from recsys.config.flags import run_words
from recsys.config.help import format_command
from recsys.errors import ConfigError
from recsys.recommend.__main__ import ASKS, CONTEXT, parse_query_words
from recsys.trained.bundle.bundle import Bundle, open_bundle
from recsys.trained.run import TrainedRun, load

OWN = ("item", "items", "method", "most", "html", "tokens", "titles")
USAGE = (
    "usage: python -m recsys.explain run=FOLDER|last|folder=BUNDLE "
    "user=ID|history=ID,ID|text=TEXT item=ID [key=value ...]"
)
WORDS = (
    ("run=FOLDER", "of a finished run; last: the newest one; a glob: the newest of those"),
    ("folder=BUNDLE", "in place of run=: a bundle, which python -m recsys.export writes"),
    ("user=ID", "a user of the data"),
    ("history=ID,ID", "items that someone had, the latest one last"),
    ("text=TEXT", 'what is looked for, as in text="red lamp"'),
    ("item=ID", "whose score is explained"),
    ("items=FILE", "further items, as in recommend"),
    ("method=exact", "or gradients or leave_one_out; left out: the first that the model goes with"),
    ("tokens=true", "also what each word of the texts adds"),
    ("titles=3", "of how many titles of the history, where the model reads each apart"),
    ("most=10", "how many items of the history, and how many words, are named"),
    ("html=FILE", "write a page, which loads nothing from elsewhere"),
    ("at=now", "the moment, as in recommend"),
    (f"{CONTEXT}COLUMN=VALUE", "as in recommend"),
    ("output=runs", "where run=last looks"),
)


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    return run_words(
        argv,
        lambda _: format_command(USAGE, WORDS),
        lambda words: explain(parse_query_words(words, OWN, {"most": 1, "titles": 0})),
    )


def explain(words: dict[str, str]) -> list[str]:
    """The lines of the terminal; writes the page where one is asked for.

    Raises:
        ConfigError: The run cannot be read, or a word makes no sense.
        DataError: An id is unknown, or the moment is no time.
    """
    if not words.get("item", "").strip():
        raise ConfigError("item= names no item; give the id of what was recommended, as in item=7.")
    tokens = words.get("tokens", "false")
    if tokens not in ("true", "false"):
        raise ConfigError(f"tokens is '{tokens}'; set it to true or leave it out.")
    page = words.get("html")
    if page is not None:
        _check_page(Path(page))
    model: TrainedRun | Bundle
    if "folder" in words:
        model = open_bundle(words["folder"])
    else:
        model = load(words["run"], words.get("output", "runs"))
    if "items" in words:
        model = model.add_items(words["items"])
    history = words["history"].split(",") if "history" in words else None

    from recsys.trained.explanations.parts import TITLES
    from recsys.trained.explanations.terminal import format_explanation

    explanation = model.explain(
        words["item"].strip(),
        user=words.get(ASKS[0]),
        history=None if history is None else [each.strip() for each in history],
        text=words.get(ASKS[2]),
        at=words.get("at", "now"),
        context={k.removeprefix(CONTEXT): v for k, v in words.items() if k.startswith(CONTEXT)},
        method=words.get("method"),
        tokens=tokens == "true",
        titles=int(words.get("titles", TITLES)),
    )
    lines = format_explanation(
        explanation,
        shutil.get_terminal_size((100, 24)).columns,
        int(words.get("most", "10")),
        colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ,
    )
    if page is not None:
        from recsys.trained.explanations.page import write_page

        write_page(explanation, Path(page))
        lines.append(f"written to {page}")
    return lines


def _check_page(page: Path) -> None:
    """Raises a `ConfigError` for a page that cannot be written; missing folders are made."""
    if page.is_dir():
        raise ConfigError(f"html={page} is a folder; name a file, such as {page / 'why.html'}.")
    there = next(folder for folder in page.absolute().parents if folder.exists())
    if not there.is_dir():
        raise ConfigError(f"html={page}: '{there}' is no folder; choose another place.")


if __name__ == "__main__":
    command.run_command(main)
