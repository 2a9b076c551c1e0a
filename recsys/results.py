"""What a run leaves behind: a folder of files, written aside and then renamed."""

from __future__ import annotations

import io
import json
import platform
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys.data.files import write_atomic
from recsys.data.tables import Tables
from recsys.errors import DataError

PACKAGES = ("torch", "lightning", "transformers", "peft", "polars", "recsys")


def new_folder(output: str, name: str, config: str) -> Path:
    """Makes the run's own folder with its `config.yaml`; an existing one is never used again.

    Raises:
        DataError: The folder cannot be made, or the disk is full; then there is none.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = Path(output) / f"{name}-{stamp}-{secrets.token_hex(2)}"
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{path}: the result folder cannot be made ({error.strerror}).") from None
    try:
        write_atomic(path / "config.yaml", config)
    except DataError:
        path.rmdir()
        raise
    return path


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results."""
    return {"python": platform.python_version(), **{p: metadata.version(p) for p in PACKAGES}}


def commit() -> dict[str, object]:
    """The commit of the code and whether it had changes; empty outside a checkout."""
    root = Path(__file__).resolve().parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:  # no git on this machine
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    return {"commit": head, "dirty": bool(git("status", "--porcelain"))} if head else {}


def peak_anonymous_mb() -> float | None:
    """Anonymous memory of this process in MiB, or None where the system does not tell.

    Memory maps of caches do not count: the resident size would inflate for them.
    """
    path = Path("/proc/self/status")
    if not path.is_file():
        return None
    lines = [line.split() for line in path.read_text().splitlines()]
    found = [int(words[1]) for words in lines if words[0] == "RssAnon:"]
    return found[0] / 1024 if found else None


def gather(rows: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The rows of all ranks; every rank must call it. In one process it is the identity."""
    if not torch.distributed.is_initialized():
        return rows
    parts: list[list[dict[str, Tensor]]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def cases_frame(rows: Sequence[Mapping[str, Tensor]], tables: Tables) -> pl.DataFrame:
    """One row a case, with the user's own ids: every k and slice can be recomputed from it."""
    if not rows:
        raise DataError("the test part has no case; choose another split.")
    frame = pl.DataFrame({name: torch.cat([row[name] for row in rows]).numpy() for name in rows[0]})
    frame = frame.sort("case")
    users, items = tables.users["user"], tables.items["item"]
    return frame.with_columns(
        user=users[frame["user"].to_list()], target=items[frame["target"].to_list()]
    )


def write(folder: Path, result: Mapping[str, object], cases: pl.DataFrame) -> None:
    """Writes `cases.parquet`, then `result.json`, whose presence says that the run is complete.

    Raises:
        DataError: The disk is full; each file is whole or absent.
    """
    buffer = io.BytesIO()
    cases.write_parquet(buffer)
    write_atomic(folder / "cases.parquet", buffer.getvalue())
    write_atomic(folder / "result.json", json.dumps(result, indent=2, allow_nan=True) + "\n")


def show(table: Mapping[str, Mapping[str, float]], k: int) -> None:
    """The closing table: this run under its floors, in percent."""
    from rich.console import Console
    from rich.table import Table

    names = [f"hr@{k}", f"ndcg@{k}", "mrr", f"warm/ndcg@{k}", f"cold/ndcg@{k}"]
    out = Table(title="test, in percent")
    out.add_column("")
    for name in names:
        out.add_column(name, justify="right")
    for row, metrics in table.items():
        shown = [metrics[name] for name in names]
        out.add_row(row, *("-" if value != value else f"{100 * value:.2f}" for value in shown))
    Console().print(out)
