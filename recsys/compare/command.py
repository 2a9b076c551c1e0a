"""What the command does, as functions: runs to a verdict and a report."""

from __future__ import annotations

import hashlib
import html
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from recsys import printable
from recsys.config.compose import nearest
from recsys.config.yaml_file import write_words
from recsys.errors import ConfigError
from recsys.runs.result_file import replace_nan
from recsys.words import partition_word

if TYPE_CHECKING:
    from recsys.boards.specification import BoardSpec
    from recsys.compare.outcome import Comparison
    from recsys.compare.report.table import TextTable


KEYS: Mapping[str, str] = {
    "names": "YAML or JSON file of names for methods, {NAME: [RUN, ...], ...}; where no RUN stands "
    "on the command line, its runs are compared",
    "metric": "of differences and plots: hr@K, ndcg@K, recall@K, map@K with any K, mrr, mrr_all "
    "or auc (default ndcg@10; auc where cases have several positives)",
    "baseline": "a method's name or label, or the folder of one of its runs (default: the first)",
    "margin": "difference that does not matter, in percent points: adds a test of equivalence",
    "family": "name of the contrasts that are corrected together, those of this command; two "
    "commands are corrected apart, whatever their families are called (default: comparison)",
    "level": "coverage of intervals; tests reject at one minus it (default 0.95)",
    "slices": "cold,cold_user,history,popularity or any column of cases.parquet, such as "
    "item.COLUMN of evaluation.slices=[COLUMN]; none for no slices",
    "details": "true: also print every table and sentence of the report (default: false)",
    "output": "folder of the report (default: comparison-DIGEST)",
    "wandb": "spec: also write wandb.json, a workspace and a report at Weights & Biases to push "
    "later with python -m recsys.boards push=FOLDER; push: do so now (default: off)",
    "wandb_entity": "user or team that will own them (default: that of the key)",
}
WANDB = ("off", "spec", "push")
FILES = ("report.md", "table.tex", "report.html", "comparison.json")


@dataclass(frozen=True)
class CompareArguments:
    """What the command line says.

    Attributes:
        runs: Words that name runs.
        keys: The others, by key, as given.
    """

    runs: list[str]
    keys: dict[str, str]


def parse_words(words: Sequence[str]) -> CompareArguments:
    """Runs and keys.

    Raises:
        ConfigError: A key is unknown or there twice, or nothing names a run.
    """
    runs, keys = [], {}
    for word in words:
        parts = partition_word(word)
        # A run's folder may have an equals sign in its name.
        if parts is None or "/" in parts[0] or Path(word).exists():
            runs.append(word)
            continue
        key, value = parts
        if key not in KEYS:
            raise ConfigError(f"{key} is not a known key.{nearest(key, KEYS)}")
        if key in keys:
            raise ConfigError(f"{key} is there twice; keep one.")
        keys[key] = value
    if not runs and "names" not in keys:
        raise ConfigError("name the runs to compare: folders, or a glob such as 'runs/*'.")
    return CompareArguments(runs, keys)


def _parse_number(
    asked: CompareArguments, key: str, least: float, most: float, remedy: str
) -> float | None:
    """A number between two others, both left out; None where the key is not there."""
    if key not in asked.keys:
        return None
    try:
        value = float(asked.keys[key])
    except ValueError:
        value = math.nan
    if not least < value < most:
        raise ConfigError(f"{key} is '{asked.keys[key]}'; {remedy}.")
    return value


@dataclass(frozen=True)
class ComparisonResult:
    """What `compare_runs` returns.

    Attributes:
        folder: Of the report: report.md, table.tex, report.html, comparison.json.
        comparison: All that the report shows.
    """

    folder: Path
    comparison: Comparison

    @property
    def verdict(self) -> str:
        """What the comparison says first."""
        return self.comparison.verdict

    @property
    def tables(self) -> list[TextTable]:
        """The tables of the report, as texts."""
        from recsys.compare.report import tables

        return tables.make_report_tables(self.comparison)

    def __repr__(self) -> str:
        """Folder and verdict."""
        return f"ComparisonResult({str(self.folder)!r}, verdict={self.verdict!r})"

    def _repr_html_(self) -> str:
        """The verdict and the first table of the report."""
        from recsys.compare.report import table

        return "\n".join(
            [f"<p>{html.escape(self.verdict)}</p>", *table.render_html(self.tables[0])]
        )


def compare_runs(*runs: str | Path, **keys: object) -> ComparisonResult:
    """Compares runs, prints the verdict and a table, and writes the report.

    Args:
        *runs: Folders of runs, folders of these, or globs such as `"runs/*"`.
        **keys: The keys of `python -m recsys.compare`, as in `baseline="full", margin=0.5`.

    Returns:
        The report's folder and what is in it.

    Raises:
        RecsysError: A key is wrong, or the runs cannot be compared.
    """
    return run_comparison(write_words([str(run) for run in runs], keys, listed=","))


def run_comparison(words: Sequence[str]) -> ComparisonResult:
    """As `compare_runs`.

    Args:
        words: As on the command line.
    """
    asked = parse_words(words)
    margin = _parse_number(asked, "margin", 0, 100, "give percent points above 0, as in margin=0.3")
    level = _parse_number(asked, "level", 0.5, 1, "give a share below 1, as in level=0.95") or 0.95
    slices, details = _parse_slices(asked), _parse_details(asked)
    wandb = _parse_wandb(asked)
    if asked.keys.get("output") == "":
        raise ConfigError("output is empty; name a folder, or leave it out.")

    from recsys.compare import aliases as names
    from recsys.compare import analysis, comparable, methods
    from recsys.compare import finished_runs as runs
    from recsys.compare.measures import case_values
    from recsys.compare.methods import make_short_names
    from recsys.compare.outcome import ComparisonSettings
    from recsys.compare.report import sentences
    from recsys.compare.report import verdict as verdicts

    file = Path(asked.keys["names"]) if "names" in asked.keys else None
    given = names.read_names(file) if file else {}
    past = [runs.read_run(folder) for folder in runs.find_runs(asked.runs) or given]
    comparable.check_comparable(past)
    found = methods.group_runs(past, given)
    metric = (
        asked.keys["metric"] if "metric" in asked.keys else case_values.choose_default_metric(past)
    )
    case_values.check_metric(metric, past)
    base = asked.keys.get("baseline", found[0].label)
    family = asked.keys.get("family", "comparison")
    label = methods.choose_method(base, found).label
    question = ComparisonSettings(metric, label, margin, family, level, slices)
    result = analysis.compare_methods(found, question)
    notes = [*result.notes, *(names.collect_notes(file, given, found) if file else [])]
    result = replace(
        result,
        sentences=sentences.describe_comparison(result),
        notes=notes,
        verdict=verdicts.describe_verdict(result),
    )
    output = Path(asked.keys.get("output", f"comparison-{compute_digest(result)}"))
    specification = None
    if wandb != "off":  # a run that was not logged there is refused before anything is written
        from recsys.compare.report import wandb_report

        entity = asked.keys.get("wandb_entity", "")
        specification = wandb_report.specification(result, found, entity)
    print_comparison(result, make_short_names(found), details)
    write_report(result, output)
    print(f"report: {output / 'report.html'}")
    if specification is not None:
        write_board(specification, output, push=wandb == "push")
    return ComparisonResult(output, result)


def write_board(specification: BoardSpec, output: Path, push: bool) -> None:
    """Writes the comparison's workspace and report for Weights & Biases, and pushes them.

    Raises:
        ConfigError: The push is refused.
    """
    from recsys.boards import specification as boards

    print(f"wandb: {boards.write_board(specification, output)}")
    if push:
        from recsys.boards.push import push_board as send

        print(*(f"wandb: {address}" for address in send(specification)), sep="\n")


def _parse_wandb(asked: CompareArguments) -> str:
    """off, spec or push; a push that cannot work is refused before the comparison is made."""
    found = asked.keys.get("wandb", "off")
    if found not in WANDB:
        raise ConfigError(f"wandb is '{found}'; it is off, spec or push.{nearest(found, WANDB)}")
    if found == "off" and "wandb_entity" in asked.keys:
        raise ConfigError("wandb_entity is there without wandb; add wandb=spec or wandb=push.")
    if found == "push":
        from recsys.boards.push import check_ready

        check_ready()
    return found


def _parse_details(asked: CompareArguments) -> bool:
    """Whether all is printed.

    Raises:
        ConfigError: The word is neither true nor false.
    """
    value = asked.keys.get("details", "false")
    if value not in ("true", "false"):
        raise ConfigError(f"details is '{value}'; set it to true or false.")
    return value == "true"


def _parse_slices(asked: CompareArguments) -> tuple[str, ...] | None:
    """The columns to slice by; None where the user leaves it to the command."""
    if "slices" not in asked.keys:
        return None
    names = [name.strip() for name in asked.keys["slices"].split(",")]
    return () if names == ["none"] else tuple(name for name in names if name)


def compute_digest(comparison: Comparison) -> str:
    """Eight letters that tell one question about some runs from another."""
    parts = [asdict(comparison.question), [[row.label, row.runs] for row in comparison.rows]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def print_comparison(comparison: Comparison, names: Mapping[str, str], details: bool) -> None:
    """Prints the verdict and one table; where nobody watches, as wide as it needs.

    Args:
        comparison: What was found.
        names: Short names of the methods by their labels.
        details: Print the tables and sentences of the report too.
    """
    from rich.console import Console
    from rich.text import Text

    from recsys.compare.report import table, tables, verdict

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=240)

    def print_line(text: str, style: str = "") -> None:
        # As a file or a pipe gets it, a sentence is one line.
        console.print(Text(printable.escape_line(text), style), soft_wrap=not console.is_terminal)

    print_line(verdict.describe_verdict(comparison, names), "bold")
    table.print_table(tables.make_summary_table(comparison, names), console)
    if details:
        for each in tables.make_report_tables(comparison):
            table.print_table(each, console)
    for note in comparison.notes:
        print_line(f"note: {note}")
    if details:
        console.print()
        for sentence in comparison.sentences:
            print_line(sentence)
    else:
        print_line("details=true prints the rest of the report", "dim")


def write_report(comparison: Comparison, output: Path) -> None:
    """Writes the four files, each whole or not at all.

    Raises:
        DataError: The disk is full, or the folder cannot be made.
    """
    from recsys.compare.report import page
    from recsys.errors import DataError
    from recsys.runtime.files import write_atomic

    text = json.dumps(replace_nan(asdict(comparison)), indent=1, allow_nan=False) + "\n"
    contents = (
        page.render_markdown(comparison),
        page.render_latex(comparison),
        page.render_html(comparison),
        text,
    )
    try:
        for name, content in zip(FILES, contents, strict=True):
            write_atomic(output / name, content)
    except OSError as error:
        raise DataError(f"{output}: the report cannot be written ({error.strerror}).") from None
