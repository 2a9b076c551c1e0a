"""The contracts catch what they are there for: a broken choice of each axis fails the right one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROKEN = {
    # It says that its output is the pretrained one at first, and has changed a weight.
    "leaky": """
from dataclasses import dataclass
from typing import ClassVar
from recsys.config.schema import TuningConfig
from recsys.tuning import bitfit

@dataclass
class Config(TuningConfig):
    moves: ClassVar[str] = "encoder"

def apply(encoder, cfg):
    tuned = bitfit.apply(encoder, bitfit.Config())
    weight = next(p for n, p in encoder.model.named_parameters() if n.endswith("dense.weight"))
    weight.data.mul_(1.5)
    return tuned
""",
    # The loss does not look at the target.
    "blind": """
from dataclasses import dataclass
from recsys.losses import (
    SampledObjectiveConfig,
    compute_pair_loss,
    select_target_and_negatives,
)

@dataclass
class Config(SampledObjectiveConfig):
    pass

class Objective:
    def __init__(self, negatives, sampling):
        pass

    def __call__(self, scored, batch, around):
        target, negative = select_target_and_negatives(batch, around)
        others = scored.scores[:, 1:]
        return compute_pair_loss(lambda s: 1 + s * s, others, negative, batch.importance)
""",
    # A score depends on who else is in the batch.
    "sociable": """
from dataclasses import dataclass
from recsys.architectures import two_tower
from recsys.models.two_tower import Model as TwoTower
from recsys.types import Scored

@dataclass
class Config(two_tower.Config):
    pass

class Model(TwoTower):
    def forward(self, batch):
        found = super().forward(batch)
        return Scored(found.scores - found.scores.mean(), found.queries, found.items)
""",
    # Rows come in another order each time.
    "restless": """
from dataclasses import dataclass
from typing import ClassVar
import polars as pl
from recsys.config.schema import SourceConfig
from recsys.data.tables import Tables, check_tables

SEEDS = iter(range(100))

@dataclass
class Config(SourceConfig):
    default_split: ClassVar[str] = "leave_one_out"
    path: str = ""

def load(cfg):
    events = pl.DataFrame({"user": [f"u{n % 5}" for n in range(30)],
                           "item": [f"i{n % 7}" for n in range(30)],
                           "time": list(range(30))})
    events = events.sample(fraction=1.0, shuffle=True, seed=next(SEEDS))
    items = events.select("item").unique(maintain_order=True).with_columns(text=pl.lit("a"))
    users = events.select("user").unique(maintain_order=True).with_columns(text=pl.lit(""))
    return check_tables(Tables(events, items, users), "made up")
""",
}
TESTS = """
from recsys.testing import ArchitectureContract, ObjectiveContract, SourceContract, TuningContract

class TestLeaky(TuningContract):
    choice = "broken.leaky"

class TestBlind(ObjectiveContract):
    choice = "broken.blind"

class TestSociable(ArchitectureContract):
    choice = "broken.sociable"

class TestRestless(SourceContract):
    choice = "broken.restless"

    def write(self, folder):
        return [f"path={folder}"]
"""
CAUGHT = {
    "TestLeaky::test_it_starts_at_the_pretrained_output_if_it_says_so",
    "TestBlind::test_a_batch_is_learned_by_heart",
    "TestSociable::test_scores_do_not_depend_on_company",
    "TestRestless::test_it_reads_the_same_twice",
}


@pytest.mark.slow
def test_a_broken_choice_fails_its_contract(tmp_path):
    (tmp_path / "broken").mkdir()
    for name, text in BROKEN.items():
        (tmp_path / "broken" / f"{name}.py").write_text(text)
    (tmp_path / "test_broken.py").write_text(TESTS)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_broken.py"]
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=env)
    failed = set(re.findall(r"^FAILED test_broken.py::(\w+::\w+)", done.stdout, re.MULTILINE))
    assert done.returncode == 1, done.stdout + done.stderr
    assert failed >= CAUGHT, done.stdout
    # What is broken is told apart: the rest holds.
    assert "TestRestless::test_tables_have_ids_texts_and_known_items" not in failed
    assert "TestSociable::test_it_learns_a_batch_by_heart" not in failed
