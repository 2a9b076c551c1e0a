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
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.config.yaml_file import read_mapping
from recsys.data.batches.rows import CandidateLists
from recsys.data.splits.split import TEST, TRAIN, VAL, Split
from recsys.encoders.pretrained.source import WEIGHTS, ModelFiles
from recsys.runs.result_file import read_result
from recsys.runtime.files import ENCODER_FOLDER, PRETRAINING

if TYPE_CHECKING:
    from recsys.encoders.cache.frozen_layers import FrozenLayerCache
    from recsys.encoders.cache.vectors import FrozenVectorCache
    from recsys.encoders.pretrained.sentence_transformers import EmbeddingSpec

PACKAGES = ("torch", "lightning", "transformers", "peft", "polars", "recsys")

PARTS = {TRAIN: "train", VAL: "val", TEST: "test"}


def compute_digest(*arrays: NDArray[np.generic]) -> str:
    """SHA-256 of arrays: of their types, shapes and contents, in the given order."""
    out = hashlib.sha256()
    for array in arrays:
        out.update(f"{array.dtype.str}{array.shape}".encode())
        out.update(np.ascontiguousarray(array).tobytes())
    return out.hexdigest()


def compute_data_digests(split: Split, lists: Mapping[int, CandidateLists]) -> dict[str, object]:
    """Checksums by which two results show that they split and ranked the same.

    Args:
        split: The events and their roles.
        lists: What is ranked, by role; empty where the whole catalog is.
    """
    out: dict[str, object] = {"roles_sha256": compute_digest(split.offsets, split.item, split.role)}
    if lists:
        out["lists_sha256"] = {
            PARTS[role]: compute_digest(
                *(x for f in fields(CandidateLists) if (x := getattr(of_role, f.name)) is not None)
            )
            for role, of_role in lists.items()
        }
    return out


def identify_encoder(files: ModelFiles, following: EmbeddingSpec | None) -> dict[str, object]:
    """Which pretrained model it was: name, revision, and the checksum of its one weights file.

    Args:
        files: The model's, as it was loaded.
        following: How its states became vectors.
    """
    checksum = None
    # In the folder that was loaded: a hub that is asked again may have other weights by now.
    weights = files.folder / WEIGHTS
    if weights.is_file():  # in several files: the name and revision have to do
        with weights.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
    told = {} if following is None else {"follows": asdict(following)}
    return {"model": files.spec, "revision": files.revision, "sha256": checksum, **told}


def summarize_pretraining(files: ModelFiles) -> list[dict[str, object]]:
    """What a result says of the pretraining that left its encoder; empty where none did.

    It has the keys of `StoredRun.summarize`, so that what a run builds on is costed alike.

    Args:
        files: Those of the encoder.
    """
    inside = Path(files.where)
    folder = inside.parent
    if inside.name != ENCODER_FOLDER or not (folder / PRETRAINING).is_file():
        return []
    config = read_mapping(folder / PRETRAINING)
    try:
        result = read_result(folder)
    except FileNotFoundError:  # stopped when its encoder had been written
        result = {}
    cost = result.get("cost", {})
    kept = ("method_seconds", "method_cpu_seconds", "kept_seconds", "kept_cpu_seconds")
    return [
        {
            "run": str(folder),
            "sha256": identify_encoder(files, None)["sha256"],
            "experiment": config.get("experiment"),
            "seed": config.get("seed"),
            "cost": {name: cost.get(name) for name in kept},
            "built_on": result.get("built_on", []),
            "config": config,
            "encoder": result.get("encoder", {}),
            "fitted": False,
            "steps": result.get("validation", {}).get("steps"),
            "floors": [],
        }
    ]


def summarize_cache(kept: FrozenLayerCache | FrozenVectorCache | None) -> dict[str, object]:
    """What the kept states or vectors cost: at this start, and to build; empty without any."""
    if kept is None:
        return {}
    return {"cache_seconds": kept.report.seconds, "cache": asdict(kept.report)}


def collect_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results, and the processor."""
    found = {"python": platform.python_version(), **{p: metadata.version(p) for p in PACKAGES}}
    return {**found, "cpu": _read_cpu_name()}


def _read_cpu_name() -> str:
    """The processor's name, without which seconds of two runs say little."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def find_commit() -> dict[str, object]:
    """The commit of the code and whether the code had changes; empty outside a checkout.

    Pages, data and configurations are not the code: what a run was asked stands in its config.
    """
    root = Path(__file__).resolve().parent

    def run_git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:  # no git on this machine
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = run_git("rev-parse", "HEAD")
    code = (":(top)*.py", ":(top)pyproject.toml")
    return (
        {"commit": head, "dirty": bool(run_git("status", "--porcelain", "--", *code))}
        if head
        else {}
    )
