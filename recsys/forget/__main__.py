"""python -m recsys.forget user=ID: deletes a user from data, feedback, bundles and cases.

It lists what it changes and what it cannot, and asks first. Without `in=` it looks into `runs`.
"""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)

from collections.abc import Sequence
from pathlib import Path

from recsys import printable
from recsys.clean.asking import agree
from recsys.config.compose import nearest
from recsys.config.flags import run_words
from recsys.config.help import format_command
from recsys.errors import ConfigError, raise_file_error
from recsys.words import find_value, split_word

KEYS = {
    "user=ID": "whom to delete; several words for several users",
    "in=runs": "folders to look into, or files of feedback, with a comma between two: prepared "
    "data, states of services, bundles and runs below them",
    "yes=true": "does not ask",
}

USAGE = "usage: python -m recsys.forget user=ID [key=value ...]"


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    return run_words(
        argv,
        lambda _: format_command(USAGE, KEYS.items()),
        forget,
    )


@raise_file_error()
def forget(words: Sequence[str]) -> None:
    """Lists where users stand, and takes them out once that is agreed to.

    Raises:
        ConfigError: A word is wrong.
        DataError: A place cannot be read or written.
    """
    pairs = [split_word(word, "user=7") for word in words]
    known = [key.partition("=")[0] for key in KEYS]
    for key, value in pairs:
        if key not in known:
            raise ConfigError(f"{key} is not a known key.{nearest(key, known)}")
        if not value.strip():
            raise ConfigError(f"{key} is empty; give it a value, or leave it out.")
    users = {value for key, value in pairs if key == "user"}
    if not users:
        raise ConfigError("name whom to delete: user=ID.")
    sure = find_value(words, "yes") or "false"
    if sure not in ("true", "false"):
        raise ConfigError(f"yes is '{sure}'; set it to true or leave it out.")
    roots = [Path(each.strip()) for each in (find_value(words, "in") or "runs").split(",")]
    for root in roots:
        if not root.exists():
            raise ConfigError(f"in={root} is not there; name folders or files of feedback.")
    from recsys.forget.places import find_places, find_untouched

    places = find_places(roots, users)
    for place in places:
        _say(f"{place.kind:<8}  {place.rows:>6} rows  {place.path}")
    for sentence in find_untouched(roots):
        _say(f"stays: {sentence}")
    if not places:
        _say("The user stands in none of these places.")
        return
    if agree(f"Delete {len(users)} user(s) from {len(places)} places?", sure == "true"):
        for place in places:
            place.check()
        for place in places:
            place.forget(users)
        left = find_places(roots, users)
        if left:
            raise ConfigError(f"{left[0].path}: the user came back meanwhile; run this again.")
        _say(f"Deleted from {len(places)} places.")
        if any(place.kind == "data" for place in places):
            _say("Runs on this data see that it has changed; refresh or fit them again.")


def _say(text: str) -> None:
    print(printable.escape_line(text))


if __name__ == "__main__":
    command.run_command(main)
