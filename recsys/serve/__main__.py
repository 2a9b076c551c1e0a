"""python -m recsys.serve folder=BUNDLE|run=RUN: recommendations over HTTP, and a page to try."""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)

import sys
from collections.abc import Sequence
from pathlib import Path

from recsys.config.flags import run_words
from recsys.config.help import format_command
from recsys.errors import ConfigError
from recsys.serve.options import KEY_VARIABLE, Limits, ServeOptions, make_options
from recsys.words import split_words

USAGE = "usage: python -m recsys.serve folder=BUNDLE|run=FOLDER|last|current [key=value ...]"
WORDS = (
    ("folder=BUNDLE", "what python -m recsys.export writes; a link to one is followed"),
    (
        "run=FOLDER",
        "in place of folder=: of a finished run; last: the newest one; a glob: the newest of "
        "those; current: the one that a refresh promoted, and later the next",
    ),
    ("state=FOLDER", "where feedback is kept; .serve/NAME beside the model"),
    (f"host={ServeOptions.host}", "address to listen on; one beyond this machine needs a key"),
    (f"port={ServeOptions.port}", "to listen on; 0: any that is free"),
    ("key_file=FILE", f"holds the API key; else {KEY_VARIABLE} of the environment is it"),
    (f"watch={ServeOptions.watch}", "seconds between two looks for a newer model; 0: none"),
    (f"drain={ServeOptions.drain}", "most seconds for requests in work when it is stopped"),
    (f"max_body={Limits.max_body}", "bytes of a request"),
    (f"max_text={Limits.max_text}", "characters of a text"),
    (f"max_history={Limits.max_history}", "items of a history"),
    (f"max_k={Limits.max_k}", "items that may be asked for"),
    (f"max_events={Limits.max_events}", "events or items in one request"),
    (f"max_lines={Limits.max_lines}", "lines of a conversation"),
    (f"max_added={Limits.max_added}", "items that may be added while it runs"),
    (f"concurrency={Limits.concurrency}", "requests in work at once; more are answered with 429"),
    (f"queue={Limits.queue}", "queries that may wait for the model; more are answered with 429"),
    (f"batch_tokens={Limits.batch_tokens}", "tokens that the model is given at once"),
    (f"batch_queries={Limits.batch_queries}", "queries that it is given at once"),
    ("output=runs", "where run=last and run=current look"),
)


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0 after a signal, or that of the error, which is told in one sentence.
    """
    return run_words(
        argv,
        lambda _: format_command(USAGE, WORDS),
        run_service,
    )


def run_service(argv: Sequence[str]) -> None:
    """Serves until a signal comes.

    Raises:
        ConfigError: A word is wrong, or a library is missing.
        DataError: The model or the state cannot be read.
    """
    words = split_words(argv, "port=8000")
    given = [name for name in ("folder", "run") if words.get(name)]
    if len(given) != 1:
        raise ConfigError("give folder= or run=, as in run=last; --help says more.")
    make_options(words, Path(words[given[0]]))  # before anything is looked for
    check_libraries()

    from recsys.printable import escape_line
    from recsys.runs.current import find_current_run
    from recsys.serve.app import make_app
    from recsys.serve.model import load_model
    from recsys.serve.places import CURRENT_MODEL, describe_old_state
    from recsys.serve.server import bind, serve
    from recsys.serve.service import Service
    from recsys.trained.run import load

    output = words.get("output", "runs")
    if words.get("run") == CURRENT_MODEL:
        find_current_run(Path(output))
        folder = Path(output) / CURRENT_MODEL
    elif "run" in words:
        folder = load(words["run"], output).folder
    else:
        folder = Path(words["folder"])
    options = make_options(words, folder)
    note = describe_old_state(folder, options.state)
    if note is not None and "state" not in words:
        print(escape_line(f"note: {note}."), file=sys.stderr)
    with bind(options) as held:
        serve(make_app(Service(options, load_model)), options, held)


def check_libraries() -> None:
    """Says so where what the service is made of is not installed.

    Raises:
        ConfigError: A library is missing.
    """
    from importlib.util import find_spec

    for name in ("fastapi", "uvicorn", "prometheus_client"):
        if find_spec(name) is None:
            raise ConfigError(f"{name} is not installed: pip install 'recsys[serve]'.")


if __name__ == "__main__":
    command.run_command(main)
