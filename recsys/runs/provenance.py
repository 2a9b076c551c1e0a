"""What a result says of its circumstances: encoder, split, lists, versions and code."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.data.batches.rows import Lists
from recsys.data.splits.methods import TEST, TRAIN, VAL, Split
from recsys.encoders.cache.frozen_layers import PrefixCache
from recsys.encoders.cache.vectors import FrozenVectors
from recsys.encoders.pretrained.sentence_transformers import Following
from recsys.encoders.pretrained.source import weights_file
from recsys.errors import ConfigError

PACKAGES = ("torch", "lightning", "transformers", "peft", "polars", "recsys")

PARTS = {TRAIN: "train", VAL: "val", TEST: "test"}


def digest(*arrays: NDArray[np.generic]) -> str:
    """SHA-256 of arrays: of their types, shapes and contents, in the given order."""
    out = hashlib.sha256()
    for array in arrays:
        out.update(f"{array.dtype.str}{array.shape}".encode())
        out.update(np.ascontiguousarray(array).tobytes())
    return out.hexdigest()


def data(split: Split, lists: Mapping[int, Lists]) -> dict[str, object]:
    """Checksums by which two results show that they split and ranked the same.

    Args:
        split: The events and their roles.
        lists: What is ranked, by role; empty where the whole catalog is.
    """
    out: dict[str, object] = {"roles_sha256": digest(split.offsets, split.item, split.role)}
    if lists:
        out["lists_sha256"] = {
            PARTS[role]: digest(*(getattr(of_role, f.name) for f in fields(Lists)))
            for role, of_role in lists.items()
        }
    return out


def encoder(spec: str, revision: str | None, following: Following | None) -> dict[str, object]:
    """Which pretrained model it was: name, revision, and the checksum of its one weights file.

    Args:
        spec: As in `encoder.model`.
        revision: Commit or tag of a hub id.
        following: How its states became vectors.
    """
    found = None
    try:
        with weights_file(spec, revision).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except ConfigError:
        pass  # the weights are in several files: the name and revision have to do
    told = {} if following is None else {"follows": asdict(following)}
    return {"model": spec, "revision": revision, "sha256": found, **told}


def cache(kept: PrefixCache | FrozenVectors | None) -> dict[str, object]:
    """What the kept states or vectors cost: at this start, and to build; empty without any."""
    if kept is None:
        return {}
    return {"cache_seconds": kept.report.seconds, "cache": asdict(kept.report)}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results, and the processor."""
    found = {"python": platform.python_version(), **{p: metadata.version(p) for p in PACKAGES}}
    return {**found, "cpu": _cpu()}


def _cpu() -> str:
    """The processor's name, without which seconds of two runs say little."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> dict[str, object]:
    """The commit of the code and whether the code had changes; empty outside a checkout.

    Pages, data and configurations are not the code: what a run was asked stands in its config.
    """
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
    code = (":(top)*.py", ":(top)pyproject.toml")
    return (
        {"commit": head, "dirty": bool(git("status", "--porcelain", "--", *code))} if head else {}
    )
