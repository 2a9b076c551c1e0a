"""Names that the user gives to methods, in a file.

The file is a YAML or JSON mapping from each name to the runs of one method: folders or globs, as
on the command line, from the folder in which the command runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from recsys.compare.finished_runs import find_runs
from recsys.compare.methods import Method
from recsys.config.yaml_file import read_mapping
from recsys.errors import ConfigError


def read_names(path: Path) -> dict[Path, str]:
    """The name of each run, by its resolved folder, in the order of the file.

    Raises:
        ConfigError: The file is no such mapping, a name's word names no run, or a run stands
            under two names.
    """
    found: dict[Path, str] = {}
    for name, value in read_mapping(path).items():
        words = [value] if isinstance(value, str) else value
        texts = isinstance(words, list) and all(isinstance(word, str) for word in words)
        if not (isinstance(name, str) and name.strip() and texts and words):
            raise ConfigError(
                f"{path}: {name!r}: {value!r} is no name with its runs; write a text and a list of "
                "folders or globs, as in 'LoRA: [runs/lora-*]', with quotes around numbers."
            )
        try:
            folders = [folder.resolve() for folder in find_runs(words)]
        except ConfigError as error:
            raise ConfigError(f"{path}: '{name}': {error}") from None
        for folder in folders:
            other = found.setdefault(folder, name)
            if other != name:
                raise ConfigError(
                    f"{path}: {folder} stands under '{other}' and under '{name}'; keep one."
                )
    if not found:
        raise ConfigError(f"{path} names nothing; write a name and its runs a line.")
    return found


def collect_notes(path: Path, names: Mapping[Path, str], found: Sequence[Method]) -> list[str]:
    """A sentence on the methods without a name, and one on the names without a method.

    Args:
        path: The file, as it was named.
        names: What `read_names` took from it.
        found: The methods that are compared.
    """
    given, labels = dict.fromkeys(names.values()), [method.label for method in found]
    out = []
    if unnamed := [label for label in labels if label not in given]:
        out.append(f"{path} has no name for: {'; '.join(unnamed)} (the label is automatic).")
    if unused := [name for name in given if name not in labels]:
        out.append(f"{path} names what is not compared: {'; '.join(unused)}.")
    return out
