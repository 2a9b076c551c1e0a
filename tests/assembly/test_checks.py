"""What a choice says of itself decides which combinations are refused, whatever it is called."""

import subprocess
import sys

import pytest

from recsys.assembly import build
from recsys.assembly.checks import check_pairs
from recsys.config.compose import compose
from recsys.data.prepare import PreparedData
from recsys.errors import ConfigError

OWN = """
from dataclasses import dataclass
from typing import ClassVar
from recsys.{axis} import {base}

@dataclass
class Config({base}.Config):
    {says}

{function} = {base}.{function}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a choice outside and gives its import path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(axis, base, function, says="pass"):
        name = f"own_{base}_{tmp_path.name}"
        text = OWN.format(axis=axis, base=base, function=function, says=says)
        (tmp_path / name).mkdir()
        (tmp_path / name / "choice.py").write_text(text)
        return f"{name}.choice"

    return write


def refused(*words):
    with pytest.raises(ConfigError) as caught:
        check_pairs(compose(words))
    return str(caught.value)


def test_a_tuning_outside_that_moves_nothing_is_as_frozen(own):
    name = own("tuning", "lora", "apply", 'moves: ClassVar[str] = "nothing"')
    found = refused(f"tuning={name}", "trainer.encoder_updates=half_epoch")
    assert f"tuning={name} trains none of it" in found
    check_pairs(compose([f"tuning={name}", "objective=full_softmax"]))
    assert "tuning lora changes the encoder" in refused("objective=full_softmax")
    rows = ["architecture.item=id", "architecture.user=history"]
    check_pairs(compose([f"tuning={name}", *rows]))
    assert "nothing for tuning=lora to adapt" in refused("tuning=lora", *rows)


def test_an_objective_outside_that_needs_what_is_not_liked_is_as_bce(own):
    name = own("objectives", "bce", "Objective")
    found = refused(f"objective={name}", "objective.negatives=0")
    assert found.startswith(f"objective {name} without negatives sees liked events only")
    other = own("objectives", "mse", "Objective")
    check_pairs(compose([f"objective={other}"]))  # it reads labels, and weights differ


def test_a_sentence_names_every_objective_that_would_do():
    assert "(bce, mse)" in refused("data.targets=labelled")
    found = refused("data.negatives=impression", "objective=mse")
    assert "(bce, bpr, gbce, in_batch, sampled_softmax)" in found


EARLY = """
import sys
from recsys.fit.__main__ import main
for word in (
    "data.targets=labelled",
    "architecture=cross_encoder",
    "evaluation.monitor=loss",
    "data.augment.test_masks=2",
):
    assert main([word]) == 2
print([name for name in ("torch", "lightning", "transformers") if name in sys.modules])
"""


def test_a_command_tells_them_before_libraries_and_data_are_loaded():
    """Of both the first line of a run speaks."""
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["error:"] * 4


def test_what_an_objective_checks_itself_is_told_with_the_rest():
    words = ["objective=sampled_softmax", "objective.logq=0.5"]
    assert "logq is 0.5 with uniform sampling, which needs no correction" in refused(*words)
    check_pairs(compose([*words, "objective.sampling=frequency"]))


@pytest.mark.parametrize("model", ["./nowhere", "package:nobody_has_this/model"])
def test_an_encoder_that_is_not_there_is_told_before_data_is_read(model, monkeypatch):
    read = classmethod(lambda cls, data: pytest.fail("data was read"))
    monkeypatch.setattr(PreparedData, "prepare", read)
    with pytest.raises(ConfigError, match=r"encoder\.model"):
        build.assemble(compose([f"encoder.model={model}"]))


@pytest.mark.parametrize("kind", ["crop", "mask", "reorder", "substitute"])
def test_augmentation_is_for_what_trains(kind):
    found = refused("experiment=ease", f"data.augment.{kind}=0.1")
    assert "architecture ease does not train" in found
    assert "data.augment" in found
    check_pairs(compose(["experiment=ease", f"data.augment.{kind}=0"]))
