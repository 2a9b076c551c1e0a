"""Values are data: whatever a text holds, a run has it as it was typed, and so has its file."""

import dataclasses
import json

import pytest

from recsys.config.choices import AXES, import_choice, list_choices
from recsys.config.compose import compose, format_config, read_config
from recsys.config.yaml_file import as_word, shield, unshield
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.recommend.__main__ import main as recommend
from recsys.sweep import parsing

TEXTS = [
    *("{name} ${price}", "${oc.env:HOME}", "${", "a $$ ${x}} }", r"\${x}", "???", "$"),
    *("a: b", "a #b", "#3", "=", "<<", "-", "é 😀", "[", "{x}", "'", '"', "a\nb", " a ", ""),
    *("010", "1_0", "12:30", "2020-01-31", "1e5", "off", "null", "~", "0x1f", ".inf", "*a", "&a"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_as_it_was(text, tmp_path):
    word = json.dumps(text, ensure_ascii=False)
    run = compose(
        [
            "data.source=tables",
            f"data.source.item_text={word}",
            f"output={word}",
            f"tracking.tags=[{word}]",
            f"data.event_types={{{word}: 2}}",
        ]
    )
    path = tmp_path / "config.yaml"
    path.write_text(format_config(run), encoding="utf-8")
    for found in (run, read_config(path), compose([f"output={as_word(text)}"])):
        assert found.output == text
    for found in (run, read_config(path)):
        assert found.data.source.item_text == text
        assert found.tracking.tags == [text]
        assert found.data.event_types == {text: 2.0}
    assert unshield(shield({text: [text, 1]})) == {text: [text, 1]}


@pytest.mark.parametrize(
    ("typed", "value"),
    [("/a/My #1", "/a/My #1"), ("#3", "#3"), ("${HOME}/x", "${HOME}/x"), ("???", "???")],
)
def test_a_bare_word_is_taken_as_it_stands(typed, value):
    assert compose([f"output={typed}"]).output == value


@pytest.mark.parametrize(
    "typed", ["on", "no", "007", "1_0", "12e4567", "2020", ".5", "0x1f", "True"]
)
def test_a_key_of_text_takes_a_bare_word_as_it_was_typed(typed):
    run = compose([f"output={typed}", f"encoder.revision={typed}", f"experiment={''}"])
    assert (run.output, run.encoder.revision) == (typed, typed)
    source = compose(["data.source=tables", f"data.source.user={typed}"]).data.source
    assert source.user == typed
    assert compose([f"data.source={{name: tables, user: '{typed}'}}"]).data.source.user == typed


def test_numbers_and_truth_values_are_what_they_were():
    run = compose(["seed=7", "optimizer.lr=1e-3", "profile=on", "tracking.wandb=off", "seed=0x1f"])
    assert compose(["encoder.compile=on"]).encoder.compile == "on"
    assert (run.seed, run.optimizer.lr, run.profile, run.tracking.wandb) == (31, 1e-3, True, "off")
    run = compose(["tuning=peft", "tuning.method=vera", "tuning.options.r=4", "tracking.tags=[1]"])
    assert run.tuning.options == {"r": 4}
    run = compose(["data.event_types.buy=3", "data.event_types.on=2"])
    assert run.data.event_types == {"buy": 3.0, "on": 2.0}


def test_a_key_is_a_name_as_it_is_written():
    found = compose(["data.event_types={010: 1, on: 2, 3: 4}"])
    assert found.data.event_types == {"010": 1.0, "on": 2.0, "3": 4.0}


def test_a_default_of_a_module_outside_is_data_as_well(tmp_path, monkeypatch):
    package = tmp_path / f"out_{tmp_path.name}"
    package.mkdir()
    (package / "own.py").write_text(
        "from dataclasses import dataclass\nfrom recsys.data.sources import quickstart\n@dataclass"
        "\nclass Config(quickstart.Config):\n    item_text: str = '{title} ${year}'\n"
        "load = quickstart.load\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    run = compose([f"data.source={package.name}.own"])
    assert run.data.source.item_text == "{title} ${year}"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("tuning.rank=" + "[" * 3000 + "]" * 3000, "too deep"),
        ("tuning.rank=" + "9" * 5000, "99... (5000 characters); set it to 2147483647 or less"),
        ("tuning.rank={a: 1, a: 2}", "duplicate key a"),
        ("tuning.rank={[1]: 2}", "a key is a list"),
        ("optimizer.lr=${x}", "'${x}'"),
        ("output=[1, 2]", "a text is wanted here, and [1, 2] is a list"),
        ("output={title}", "needs quotes of its own"),
        ("tuning=3", "'3' is not a choice"),
        ("tuning.name=1e3", "'1e3' is not a choice"),
        ("experiment=1e3", "experiment '1e3' is not known"),
    ],
)
def test_what_is_no_value_is_one_sentence(word, said):
    with pytest.raises(ConfigError) as caught:
        compose([word])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\ufdd0" not in str(caught.value)


CHOICES = [(axis, name) for axis in AXES for name in list_choices(axis)]


def list_bad_values(metadata):
    """Values that are just outside of each bound, and what the sentence says of it."""
    bounds = {key: metadata[key] for key in ("least", "most", "above", "below")}
    if bounds["least"] is not None:
        end = "or more" if bounds["below"] is None else f"to below {bounds['below']}"
        start = "to" if bounds["below"] is None else "from"
        yield bounds["least"] - 1, f"{start} {bounds['least']} {end}"
    if bounds["most"] is not None:
        yield bounds["most"] + 1, f"to {bounds['most']} or less"
    if bounds["above"] is not None:
        yield bounds["above"], f"above {bounds['above']}"
    if bounds["below"] is not None:
        yield bounds["below"], f"below {bounds['below']}"


@pytest.mark.parametrize(("axis", "name"), CHOICES)
def test_every_option_of_a_choice_has_help_and_holds_its_range(axis, name):
    for field in dataclasses.fields(import_choice(axis, name)):
        assert field.metadata["help"]
        for value, said in list_bad_values(field.metadata):
            with pytest.raises(ConfigError) as caught:
                compose([f"{axis}={name}", f"{axis}.{field.name}={value}"])
            assert str(caught.value).startswith(f"{axis}.{field.name} is {value}")
            assert f"{said}." in str(caught.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("tuning.rank=0", "tuning.rank is 0; set it to 1 or more."),
        ("tuning.alpha=0", "tuning.alpha is 0.0; set it above 0."),
        ("tuning.dropout=1", "tuning.dropout is 1.0; set it from 0 to below 1."),
        ("tuning.dropout=-0.1", "tuning.dropout is -0.1; set it from 0 to below 1."),
        ("objective.logq=1.5", "objective.logq is 1.5; set it to 1 or less."),
        ("objective.label_smoothing=1", "objective.label_smoothing is 1.0; set it from 0 to below"),
        ("objective.chunk=-1", "objective.chunk is -1; set it to 0 or more."),
        ("architecture.temperature=0", "architecture.temperature is 0.0; set it above 0."),
        ("tuning.targets=mlp", "tuning.targets: "),
    ],
)
def test_a_value_outside_of_its_range_names_key_value_and_remedy(word, said):
    with pytest.raises(ConfigError) as caught:
        compose([word])
    assert str(caught.value).startswith(said)


def test_a_sweep_file_holds_data(tmp_path):
    (tmp_path / "made.yaml").write_text(
        "experiment: tfidf\nmethods:\n  a: {data.source.item_text: '{name} ${price}'}\n"
        "  b: {data.source.item_text: '???'}\nwith:\n  tracking.tags: ['${x}', '😀']\n"
        "space:\n  optimizer.lr: {low: 1e-5, high: 1e-3, log: true}\n"
        "sampler: random\nbudget: {trials: 1}\n"
    )
    found = parsing.read_definition([f"sweep={tmp_path / 'made.yaml'}", f"output={tmp_path}"])
    shared = ["data.source=tables", *found.words, *found.tracking]
    texts = {name: compose([*shared, *words]) for name, words in found.methods.items()}
    assert texts["a"].data.source.item_text == "{name} ${price}"
    assert texts["b"].data.source.item_text == "???"
    assert texts["a"].tracking.tags == ["${x}", "😀"]


def test_a_run_with_a_price_in_its_texts_is_used_as_any_other(tmp_path, monkeypatch, shop, capsys):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    lines = (shop / "items.csv").read_text().splitlines()
    (tmp_path / "items.csv").write_text(
        "\n".join([f"{lines[0]},price", *(f"{line},9.50" for line in lines[1:])]) + "\n"
    )
    words = [
        *("experiment=tfidf", "data.source=tables", "data.split=leave_one_out"),
        *(f"data.source.interactions={shop / 'events.csv'}", "data.source.user=who"),
        *(f"data.source.items={tmp_path / 'items.csv'}", "data.source.item=what"),
        *("data.source.time=when", "data.source.item_text='{name} ${price}'"),
        f"output={tmp_path / 'runs'}",
    ]
    assert main(words) == 0
    (run,) = (tmp_path / "runs").glob("*")
    capsys.readouterr()
    assert recommend([f"run={run}", "history=004", "k=2"]) == 0
    assert " $9.50" in capsys.readouterr().out
    assert main([f"resume={run}"]) == 2
    assert "finished" in capsys.readouterr().err
