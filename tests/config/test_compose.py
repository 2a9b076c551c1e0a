import subprocess
import sys
import time

import pytest

from recsys.config.compose import (
    LATER,
    compose,
    format_config,
    get_choice_name,
    list_experiments,
    read_config,
)
from recsys.config.inactive import find_inactive_settings
from recsys.errors import ConfigError
from recsys.fit.usage import format_usage
from recsys.runtime import hardware


def refused(*words, folder=None):
    with pytest.raises(ConfigError) as caught:
        compose(words, folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_precedence_is_defaults_then_experiment_then_command_line(tmp_path):
    (tmp_path / "base.yaml").write_text("optimizer:\n  lr: 0.5\n  warmup: 0.25\nseed: 3\n")
    (tmp_path / "mine.yaml").write_text("extends: base\noptimizer:\n  lr: 0.25\n")
    run = compose(["experiment=mine", "optimizer.clip=2"], tmp_path)
    assert (run.optimizer.lr, run.optimizer.warmup, run.optimizer.clip) == (0.25, 0.25, 2.0)
    assert (run.seed, run.optimizer.schedule) == (3, "linear")


def test_a_name_replaces_a_node_and_a_key_amends_it(tmp_path):
    (tmp_path / "mine.yaml").write_text("tuning:\n  name: lora\n  rank: 3\n  alpha: 5\n")
    amended = compose(["experiment=mine", "tuning.rank=7"], tmp_path).tuning
    assert (get_choice_name(amended), amended.rank, amended.alpha) == ("lora", 7, 5.0)
    replaced = compose(["experiment=mine", "tuning.width=9", "tuning=adapter"], tmp_path).tuning
    assert (get_choice_name(replaced), replaced.width) == ("adapter", 9)
    assert get_choice_name(compose(["tuning=full"]).tuning) == "full"


def test_a_name_alone_replaces_and_a_mapping_amends(tmp_path):
    (tmp_path / "mine.yaml").write_text("tuning:\n  name: lora\n  rank: 3\n  alpha: 5\n")
    (tmp_path / "alone.yaml").write_text("extends: mine\ntuning: lora\n")
    (tmp_path / "more.yaml").write_text("extends: mine\ntuning:\n  name: lora\n  rank: 4\n")

    def asked(*words, experiment="mine"):
        tuning = compose([f"experiment={experiment}", *words], tmp_path).tuning
        return tuning.rank, tuning.alpha

    assert asked("tuning=lora") == (8, 16.0)
    assert asked("tuning=lora", "tuning.rank=4") == (4, 16.0)
    assert asked("tuning.rank=4", "tuning=lora") == (4, 16.0)
    assert asked("tuning.name=lora", "tuning.rank=4") == (4, 5.0)
    assert asked("tuning={name: lora, rank: 4}") == (4, 5.0)
    assert asked(experiment="alone") == (8, 16.0)
    assert asked(experiment="more") == (4, 5.0)
    source = ["data.source=quickstart", "data.source.path=x"]
    (tmp_path / "data.yaml").write_text(
        "data:\n  source:\n    name: quickstart\n    item_text: t\n"
    )
    run = compose(["experiment=data", *source], tmp_path)
    assert (run.data.source.path, run.data.source.item_text) == ("x", "{title} ({year}). {genres}")


OWN = """
from dataclasses import dataclass
from recsys.tuning import lora
@dataclass
class Config(lora.Config):
    rank: int = 5
    depth: int = 1
apply = lora.apply
"""


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Writes a module `house_N.own` and gives its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def write(text):
        name = f"house_{tmp_path.name}_{len(made)}"
        made.append(name)
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.py").write_text(text)
        return f"{name}.own"

    return write


def test_a_module_outside_is_a_choice_by_its_import_path(house, tmp_path):
    name = house(OWN)
    run = compose([f"tuning={name}", "tuning.depth=2", "tuning.alpha=4"])
    assert get_choice_name(run.tuning) == name
    assert (run.tuning.rank, run.tuning.depth, run.tuning.alpha) == (5, 2, 4.0)
    (tmp_path / "config.yaml").write_text(format_config(run))
    again = read_config(tmp_path / "config.yaml")
    assert type(again.tuning) is type(run.tuning)
    assert again == run


CLASS = "from dataclasses import dataclass\n@dataclass\nclass Config:\n    x: int = 0\n"


@pytest.mark.parametrize(
    ("axis", "text", "parts"),
    [
        (
            "tuning",
            "from recsys.tuning.lora import Config, apply\n",
            ["recsys.tuning.lora", "of its own"],
        ),
        ("tuning", CLASS, ["lacks Config.moves, apply"]),
        ("tuning", "x = 1\n", ["no dataclass named Config"]),
        ("tuning", "def (:\n", ["cannot be imported", "own.py"]),
        ("tuning", "import no_such_package\n", ["cannot be imported", "no_such_package"]),
        ("tuning", "from recsys.tuning import lorra\n", ["cannot be imported", "lorra"]),
        ("architecture", CLASS + "Model = 1\n", ["lacks Config.gives;"]),
        ("objective", CLASS, ["lacks Config.needs, Objective;"]),
        ("data.source", CLASS, ["lacks Config.default_split, load;"]),
    ],
)
def test_a_module_outside_that_lacks_something_is_refused(house, axis, text, parts):
    name = house(text)
    refusal = refused(f"{axis}={name}")
    assert axis in refusal
    assert name in refusal
    assert all(part in refusal for part in parts), refusal


PLAIN = """
from dataclasses import dataclass
from typing import ClassVar
@dataclass
class Config:
    gives: ClassVar = frozenset({"scores"})
    width: int = 3
Model = None
"""


def test_a_config_outside_has_the_defaults_of_its_axis_without_a_base(house):
    """So that what an axis asks for can grow."""
    name = house(PLAIN)
    run, again = (compose([f"architecture={name}", "architecture.width=4"]) for _ in range(2))
    assert run == again
    assert get_choice_name(run.architecture) == name
    assert type(run.architecture).__mro__[1].__module__ == name
    assert (run.architecture.width, run.architecture.gives) == (4, {"scores"})
    assert run.architecture.trains
    assert not run.architecture.reads_tags


@pytest.mark.parametrize(
    "name", [".", ".x.y", "..", "a..b", "a.", "1.2", "lora.x", "", "[1]", "a-b.c"]
)
def test_odd_names_are_refused(name):
    assert refused(f"tuning={name}").startswith("tuning")


def test_a_damaged_stored_configuration_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    text = format_config(compose(["tuning=adapter"]))
    path.write_text(text)
    assert format_config(read_config(path)) == text
    lines = text.splitlines(keepends=True)
    damaged = ["".join(lines[:n]).encode() for n in range(0, lines.index("tracking:\n"), 5)]
    damaged += [b"\xff\xfe\x00", b"- 1\n", b"data: {\n", text.replace(": ", " ", 1).encode()]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"config\.yaml") as caught:
            read_config(path)
        assert "\n" not in str(caught.value)


def test_a_run_of_before_a_key_outside_of_all_groups_has_its_default(tmp_path):
    path = tmp_path / "config.yaml"
    whole = format_config(compose(["architecture=ease"]))
    for key in LATER:
        path.write_text("".join(x for x in whole.splitlines(True) if not x.startswith(f"{key}:")))
        assert path.read_text() != whole
        assert format_config(read_config(path)) == whole


def test_a_stored_configuration_without_augmentation_has_none(tmp_path):
    """As runs before there was any left it."""
    text = format_config(compose(["tuning=full"]))
    lines = text.splitlines(keepends=True)
    begin = lines.index("  augment:\n")
    end = next(n for n in range(begin + 1, len(lines)) if not lines[n].startswith("    "))
    older = "".join(lines[:begin] + lines[end:])
    assert "augment" not in older
    (tmp_path / "config.yaml").write_text(older)
    assert format_config(read_config(tmp_path / "config.yaml")) == text


def test_numbers_in_scientific_notation_are_numbers():
    assert compose(["optimizer.lr=3e-4"]).optimizer.lr == 3e-4


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["optimizer.lrr=1"], ["optimizer.lrr", "'lr'", "warmup"]),
        (["optimiser.lr=1"], ["optimiser", "'optimizer'"]),
        (["optimizer=1"], ["optimizer is a group", "lr"]),
        (["optimizer.lr=fast"], ["optimizer.lr", "fast"]),
        (["trainer.precision=bf15"], ["trainer.precision", "bf16-mixed"]),
        (["tuning=lorra"], ["tuning", "'lora'", "adapter"]),
        (["tuning.rnk=4"], ["tuning.rnk", "'rank'"]),
        (["data.source=movielense"], ["data.source", "'movielens'"]),
        (["experiment=lora_two_towr"], ["lora_two_towr", "'lora_two_tower'"]),
        (["architecture=no.such.module"], ["no.such.module"]),
        (["seed"], ["'seed'", "key=value"]),
        (["seed=-1"], ["seed is -1", "0 or more"]),
        (["seed=4294967296"], ["seed", "4294967295 or less"]),
        (["optimizer.betas=[0.9,1.0]"], ["optimizer.betas", "below 1"]),
        (["optimizer.betas=[-0.1,0.9]"], ["optimizer.betas", "from 0"]),
        (["optimizer.warmup=1.5"], ["optimizer.warmup is 1.5", "1 or less"]),
        (["regularization.dropout=2"], ["regularization.dropout", "from 0 to below 1"]),
        (["evaluation.k=[]"], ["evaluation.k", "one or more"]),
        (["evaluation.k=[10,5,10]"], ["evaluation.k", "different"]),
        (["evaluation.k=[0]"], ["evaluation.k", "from 1"]),
        (["evaluation.k=7"], ["evaluation.k takes a list; write evaluation.k=[7]"]),
        (["optimizer.betas={a: 1}"], ["optimizer.betas takes a list"]),
        (["evaluation.slices=[{a: 1}]"], ["evaluation.slices holds '{'a': 1}'; write a single"]),
        (["evaluation.k=[[1, 5]]"], ["evaluation.k holds '[1, 5]'; write a single value"]),
        (["data.augment=0.1"], ["data.augment is a group", "crop", "mask"]),
        (["data.augment={crop: 1.5}"], ["data.augment.crop is 1.5", "1 or less"]),
        (["data.augment.mask=-0.1"], ["data.augment.mask is -0.1", "0 or more"]),
        (["data.augment.reordr=0.1"], ["data.augment.reordr", "'reorder'"]),
        (["data.event_types=[click]"], ["data.event_types takes a mapping"]),
        (["architecture.context=hour"], ["write architecture.context=[hour]"]),
        (["architecture.context={a: 1}"], ["architecture.context takes a list"]),
        (["tuning=peft", "tuning.options=[1]"], ["tuning.options takes a mapping"]),
        (["tuning={"], ["tuning", "YAML"]),
    ],
)
def test_one_sentence_names_the_key_and_the_remedy(words, parts):
    text = refused(*words)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tuning=lora", "optimizer.encoder_lr=0.1"], ["optimizer.encoder_lr"]),
        (["tuning=full", "optimizer.encoder_lr=0.1"], []),
        (["tuning=frozen", "regularization.dropout=0.3"], ["regularization.dropout"]),
        (["data.queries=all", "data.queries_per_user=3"], ["data.queries_per_user"]),
        (["optimizer.table_lr=0.1"], ["optimizer.table_lr"]),
        (["data.augment.substitute_by=text"], ["data.augment.substitute_by"]),
        (["data.augment={substitute: .1, substitute_by: text}"], []),
        (["experiment=frozen_two_tower"], []),
        (["experiment=popularity"], []),
    ],
)
def test_what_changes_nothing_is_told(words, said):
    assert [note.split()[0] for note in find_inactive_settings(compose(words))] == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizer.lr=0"], ["optimizer.lr is 0: tuned parameters and heads stay"]),
        (
            ["optimizer.lr=0", "optimizer.head_lr=1e-3"],
            ["optimizer.lr is 0: tuned parameters stay"],
        ),
        (["optimizer.head_lr=0"], ["optimizer.head_lr is 0: heads stay"]),
        (["tuning=full", "optimizer.lr=0", "optimizer.encoder_lr=1", "optimizer.head_lr=1"], []),
        (["tuning=full", "optimizer.encoder_lr=0"], ["optimizer.encoder_lr is 0: pretrained weig"]),
        (["tuning=frozen", "optimizer.lr=0"], ["optimizer.lr is 0: heads stay"]),
        (["optimizer.table_lr=0"], ["optimizer.table_lr changes nothing"]),
        (
            ["trainer.encoder_updates=5", "optimizer.table_lr=0"],
            ["optimizer.table_lr is 0: vectors of the item table stay"],
        ),
        (["optimizer.lr=0", "trainer.max_steps=0"], []),
        (["architecture=popularity", "optimizer.lr=0"], []),
    ],
)
def test_a_rate_of_zero_is_told(words, said):
    notes = find_inactive_settings(compose(words))
    assert len(notes) == len(said)
    assert all(note.startswith(start) for note, start in zip(notes, said, strict=True)), notes


def test_experiments_that_extend_each_other_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("extends: a\n")
    assert "circle" in refused("experiment=a", folder=tmp_path)


@pytest.mark.parametrize("name", list_experiments())
def test_every_experiment_composes_and_its_print_composes_to_the_same(name, tmp_path):
    run = compose([f"experiment={name}"])
    text = format_config(run).replace(f"experiment: {name}\n", "")
    (tmp_path / "again.yaml").write_text(text)
    again = compose(["experiment=again"], tmp_path)
    again.experiment = name
    assert format_config(again) == format_config(run)


def test_help_names_every_choice():
    text = format_usage(["all"])
    for word in ("lora", "adapter", "two_tower", "in_batch", "movielens", "optimizer.lr=0.0003"):
        assert word in text


def test_a_typo_is_refused_in_under_two_seconds_without_a_traceback():
    start = time.monotonic()
    command = [sys.executable, "-m", "recsys.fit", "optimizer.lrr=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - start
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert seconds < 2


LIGHT = """
import sys
from recsys.config.compose import AXES, list_choices, list_experiments
from recsys.fit.__main__ import main

for name in list_experiments():
    assert main([f"experiment={name}", "--print-config"]) == 0
for axis in AXES:
    for name in list_choices(axis):
        if axis in ("data.source", "architecture"):
            words = [f"{axis}={name}"]
        else:
            words = ["architecture=two_tower", f"{axis}={name}"]
        assert main([*words, "--print-config"]) == 0
assert main(["--help"]) == 0
heavy = ("torch", "lightning", "transformers", "peft", "scipy", "sklearn", "wandb")
print("loaded:", [name for name in heavy if name in sys.modules])
"""


def test_a_configuration_is_shown_without_torch_whatever_is_chosen():
    """A command that only shows or refuses is there at once: these libraries take seconds."""
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded: []\n"), done.stdout[-200:]


def test_a_model_that_waits_is_found_and_another_name_is_not():
    from recsys.architectures import popularity
    from recsys.models import popularity as models

    assert popularity.Model is models.Model
    assert "Model" in dir(popularity)
    with pytest.raises(AttributeError, match="no attribute 'Modell'"):
        popularity.Modell  # noqa: B018


def test_compile_is_decided_by_the_accelerator(monkeypatch):
    assert hardware.choose_compilation("auto", "cpu") == "off"
    assert hardware.choose_compilation("off", "gpu") == "off"
    monkeypatch.setattr(hardware.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        hardware.choose_compilation("on", "cpu")
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="triton"):
        hardware.choose_compilation("auto", "gpu")


@pytest.mark.parametrize(
    ("axis", "name"),
    [("architecture", "sasrec"), ("tuning", "lora_two_tower"), ("data.source", "ease")],
)
def test_an_experiment_given_for_an_axis_is_told_apart(axis, name):
    assert f"{axis}: '{name}' is not a choice. It is an experiment: experiment={name}." in refused(
        f"{axis}={name}"
    )


def test_another_word_for_a_value_is_stored_as_the_value(tmp_path):
    """On the command line, in a node and in an experiment; in no other key."""
    (tmp_path / "mine.yaml").write_text(
        "architecture:\n  name: two_tower\n  history: transformer\n"
    )
    for words in (
        ["architecture.history=transformer"],
        ["architecture={name: two_tower, history: transformer}"],
        ["experiment=mine"],
    ):
        run = compose(words, tmp_path)
        assert run.architecture.history == "causal"
        assert "transformer" not in format_config(run)
    assert "transformer" in refused("architecture.user=transformer")
    assert "'causal'" in refused("architecture.history=transformers")


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("data.source.item_text={title}. {brand}", r"as in .*=\"'\{title\}. \{brand\}'\"\.$"),
        ("data.source.item_text={title}", r"as in .*=\"'\{title\}'\"\.$"),
        ("tracking.group={a: 1}", r"^tracking.group: a text is wanted here, and \{'a': 1\} is a"),
        ("tracking.group={a: ", r"cannot be read as YAML"),
    ],
)
def test_quotes_are_advised_where_they_help(word, sentence):
    with pytest.raises(ConfigError, match=sentence):
        compose([word])


def test_a_key_of_a_text_or_a_number_takes_a_number_as_one():
    assert compose(["experiment=lora_two_tower", "tuning.layers=1"]).tuning.layers == 1
    assert compose(["experiment=lora_two_tower", "tuning.layers=all"]).tuning.layers == "all"
    assert compose(["experiment=lora_two_tower", "encoder.model=8"]).encoder.model == "8"


def test_a_choice_without_settings_says_so():
    with pytest.raises(ConfigError, match=r"tuning\.rank .* tuning=frozen has no settings"):
        compose(["tuning=frozen", "tuning.rank=4"])


def test_every_line_of_the_help_parts_its_key_from_its_words():
    lines = [
        line for line in format_usage(["all"]).splitlines() if line.startswith("  encoder.model=")
    ]
    assert lines[0].split()[0] == f"encoder.model={compose([]).encoder.model}"
