"""What each method searches, and that a sweep that was stopped suggests what it would have."""

import optuna
import pytest
from optuna.trial import TrialState

from recsys.assembly.checks import check_pairs
from recsys.config.compose import compose
from recsys.config.flags import parse_words
from recsys.config.yaml_file import as_word, unwrap
from recsys.errors import ConfigError
from recsys.sweep import parsing, samplers
from recsys.sweep.running.leases import get_trial_index
from recsys.sweep.space import get_value_at, list_levels, make_plans

HEAD = "experiment: lora_two_tower\nbudget: {trials: 4}\n"
METHODS = "methods:\n  full: {tuning: full}\n  lora: {tuning: lora}\n  frozen: {tuning: frozen}\n"
WIDE = """
space:
  optimizer.lr: {low: 1e-5, high: 1e-1, log: true, instead: {frozen: optimizer.head_lr}}
  regularization.dropout: {low: 0.0, high: 0.5}
  tuning.rank: {choices: [2, 4, 8], when: {tuning: lora}}
  tuning.dora: {choices: [false, true], when: {tuning.rank: [4, 8]}}
"""


@pytest.fixture
def made(tmp_path):
    def write(text):
        path = tmp_path / "made.yaml"
        path.write_text(HEAD + text)
        return [f"sweep={path}"]

    return write


def test_each_method_searches_what_means_something_in_it(made):
    found = make_plans(parsing.read_definition(made(METHODS + WIDE)))
    searched = {name: [d.name for d in plan.space] for name, plan in found.items()}
    assert searched == {
        "full": ["optimizer.lr", "regularization.dropout"],
        "lora": ["optimizer.lr", "regularization.dropout", "tuning.rank", "tuning.dora"],
        "frozen": ["optimizer.lr"],
    }
    assert "no layer of the encoder trains" in found["frozen"].dropped["regularization.dropout"]
    assert found["frozen"].make_trial_words({"optimizer.lr": 0.5})[-1] == "optimizer.head_lr=0.5"


def test_what_only_some_searched_values_put_right_is_left_to_the_trials(made):
    """The base has no negatives that could be hard; its trials do."""
    words = made("space: {objective.negatives: {choices: [0, 4]}}\n")
    words += ["objective=in_batch", "objective.logq=0", "data.negatives=hard"]
    with pytest.raises(ConfigError, match=r"objective\.negatives of 1 or more"):
        check_pairs(compose(["experiment=lora_two_tower", *words[1:]]))
    (plan,) = make_plans(parsing.read_definition(words)).values()
    assert [d.name for d in plan.space] == ["objective.negatives"]


def test_augmentation_is_searched_as_any_key_and_for_methods_that_it_goes_with(made):
    space = """space:
  data.augment.mask: {low: 0.0, high: 0.3}
  data.augment.drop_words: {low: 0.0, high: 0.3}
  data.augment.substitute: {low: 0.0, high: 0.3}
  data.augment.substitute_by: {choices: [co_occurrence, text]}
"""
    found = make_plans(parsing.read_definition(made(METHODS + space)))
    searched = {name: [d.name.rpartition(".")[2] for d in p.space] for name, p in found.items()}
    histories = ["mask", "substitute", "substitute_by"]
    assert searched["full"] == ["mask", "drop_words", "substitute", "substitute_by"]
    assert searched["frozen"] == histories
    assert "encoder.cache=true" in found["frozen"].dropped["data.augment.drop_words"]
    words = found["full"].make_trial_words({"data.augment.mask": 0.25})
    assert compose(words).data.augment.mask == 0.25


def test_a_key_of_an_axis_that_a_method_does_not_know_is_left_out_there(made):
    found = make_plans(
        parsing.read_definition(made(METHODS + "space:\n  tuning.rank: {choices: [2, 4]}\n"))
    )
    assert [name for name, plan in found.items() if plan.space] == ["lora"]


@pytest.mark.parametrize(
    ("text", "words", "parts"),
    [
        ("space: {optimizer.lrr: {low: 1, high: 2}}", [], ["optimizer.lrr", "'lr'"]),
        ("space: {tuning.rnk: {choices: [1]}}", [], ["tuning.rnk", "rank"]),
        ("space: {optimizer.warmup: {low: 0.5, high: 3.0}}", [], ["optimizer.warmup", "3"]),
        ("space: {optimizer.lr: {low: 0, high: 1, log: true}}", [], ["above 0", "optimizer.lr"]),
        ("space: {optimizer.lr: {lo: 0, high: 1}}", [], ["optimizer.lr.lo is", "'low'"]),
        ("space: {evaluation.k: {choices: [5]}}", [], ["would change what is ranked"]),
        ("space: {seed: {low: 1, high: 5}}", [], ["set by the sweep"]),
        (
            "space: {optimizer.lr: {low: 0.1, high: 1.0}}",
            ["architecture=late_interaction", "trainer.encoder_updates=5"],
            ["method all: late_interaction has many vectors"],
        ),
        (
            "space: {optimizer.lr: {low: 0.1, high: 1.0}}",
            ["evaluation.monitor=ndgc@10"],
            ["evaluation.monitor", "'ndcg@10'"],
        ),
        ("space: {optimizer.encoder_lr: {low: 0.1, high: 1.0}}", [], ["changes nothing"]),
        (
            "space: {optimizer.lr: {low: 0.1, high: 1.0, when: {tunig: lora}}}",
            [],
            ["tunig", "'tuning'"],
        ),
        (
            "objectives: {validation: maximize, cost.seconds: minimize}\npruner: median\n"
            "space: {optimizer.lr: {low: 0.1, high: 1.0}}",
            [],
            ["median", "pruner: none"],
        ),
        (
            "methods:\n  a: {}\n  b: {data.max_users: 5}\nspace: {optimizer.lr: {low: 1, high: 2}}",
            [],
            ["data.max_users", "same cases"],
        ),
        ("space: {optimizer.lr: {low: 0.1, high: 1.0}}", ["trails=3"], ["trails", "'trials'"]),
        ("space: {optimizer.lr: {low: 0.1, high: 1.0}}", ["optimizer.clp=1"], ["clp", "'clip'"]),
        (
            "sampler: cmaes\nspace: {tuning.rank: {choices: [1, 2]}}",
            [],
            ["cmaes", "without conditions"],
        ),
        ("sampler: grid\nspace: {optimizer.lr: {low: 0.1, high: 1.0}}", [], ["points"]),
        ("1: 2\nspace: {optimizer.lr: {low: 0.1, high: 1.0}}", [], ["'1'"]),
        ("space: {optimizer.lr: {low: 0.1, high: .inf}}", [], ["optimizer.lr.high", "inf"]),
        ("space: {optimizer.lr: {low: 0.1, high: 1.0}}", ["hours=0"], ["hours", "above 0"]),
        ("space: {optimizer.lr: {low: 0.1, high: 1.0}}", ["hours=inf"], ["hours", "finite"]),
        (
            "space: {optimizer.lr: {low: 0.1, high: 1.0}}",
            ["evaluation.test=false"],
            ["evaluation.test", "final_seeds=0"],
        ),
        (
            "with: {seed: 3}\nspace: {optimizer.lr: {low: 0.1, high: 1.0}}",
            [],
            ["with.seed", "by a word"],
        ),
        (
            f"{METHODS}space:\n  optimizer.head_lr: {{low: 0.1, high: 1.0}}\n"
            "  optimizer.lr: {low: 0.1, high: 1.0, instead: {frozen: optimizer.head_lr}}",
            [],
            ["both set optimizer.head_lr", "frozen"],
        ),
        (
            f"methods: {{{'a' * 60}: {{tuning: full}}}}\n"
            "space: {optimizer.lr: {low: 0.1, high: 1.0}}",
            [],
            ["method=aaa", "64 letters"],
        ),
        ("sampler: {name: tpe, 1: 3}\nspace: {optimizer.lr: {low: 1, high: 2}}", [], ["tpe.1"]),
        ("sampler: {name: tpe, start: 3}\nspace: {optimizer.lr: {low: 1, high: 2}}", [], ["start"]),
    ],
)
def test_a_mistake_is_refused_before_the_first_trial(made, text, words, parts):
    def check():
        found = parsing.read_definition([*made(text), *words])
        make_plans(found)
        samplers.check_options(found)

    with pytest.raises(ConfigError) as caught:
        check()
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert "\n" not in str(caught.value)


def test_hyperband_needs_as_many_validations_as_its_first_rung(made):
    text = "space: {optimizer.lr: {low: 0.1, high: 1.0}}\npruner: {name: hyperband, first: 9}\n"
    definition = parsing.read_definition([*made(text), "trainer.epochs=3"])
    (plan,) = make_plans(definition).values()
    with pytest.raises(ConfigError, match="first is 9, and a trial of all has 4"):
        samplers.make_pruner(definition, plan)


@pytest.mark.parametrize("base", ["full", "frozen"])
def test_what_waits_for_a_choice_of_an_axis_is_checked_with_that_choice(made, base):
    text = f"with: {{tuning: {base}}}\nspace:\n  tuning: {{choices: [lora, full]}}\n"
    text += "  tuning.rank: {choices: [2, 4], when: {tuning: lora}}\n"
    text += "  optimizer.lr: {low: 0.001, high: 0.1, when: {tuning: lora}}\n"
    (plan,) = make_plans(parsing.read_definition(made(text))).values()
    assert [d.name for d in plan.space] == ["tuning", "tuning.rank", "optimizer.lr"]


@pytest.mark.parametrize(
    "text", ["all", "a b", "a: b", "{title}", "null", "true", "8", "[x", "é #"]
)
def test_a_text_is_the_same_text_on_the_command_line(text):
    assert unwrap(parse_words([f"encoder.model={as_word(text)}"], ())) == {
        "encoder": {"model": text}
    }
    assert as_word("all") == "all"


def test_the_folder_is_that_of_the_question_whatever_the_budget(made):
    words = made(WIDE + METHODS)
    first = parsing.read_definition(words).folder
    assert (
        parsing.read_definition([*words, "trials=9", "workers=3", "storage=sqlite:///x"]).folder
        == first
    )
    assert parsing.read_definition([*words, "seed=1"]).folder != first
    assert parsing.read_definition([*words, "optimizer.clip=2"]).folder != first
    up = parsing.read_definition(
        made(WIDE + METHODS + "objectives: {validation: maximize}\n")
    ).folder
    down = parsing.read_definition(
        made(WIDE + METHODS + "objectives: {validation: minimize}\n")
    ).folder
    assert up == first != down


def values_of(study):
    return [trial.params for trial in study.trials if trial.state == TrialState.COMPLETE]


def ask(study, plan, lost=False):
    """One trial, which may be lost and repeated as after a crash."""
    trial = study.ask()
    values = plan.suggest(trial)
    if lost:
        index = get_trial_index(study, trial)
        study.tell(trial, state=TrialState.FAIL)
        attributes = {"retry_of": trial.number, "index": index}
        study.enqueue_trial(trial.params, user_attrs=attributes)
        return
    score = -abs(values["optimizer.lr"] - 0.01) - values.get("regularization.dropout", 0.0)
    study.tell(trial, score)


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "random", "sobol"])
def test_a_sweep_that_lost_a_trial_and_began_anew_suggests_what_it_would_have(made, name):
    text = "space:\n  optimizer.lr: {low: 1e-4, high: 1e-1, log: true}\n"
    text += "  regularization.dropout: {low: 0.0, high: 0.5}\n"
    if name in samplers.TUNES:
        text += f"sampler: {{name: {name}, startup: 3}}\n"
    else:
        text += f"sampler: {name}\n"
    definition = parsing.read_definition(made(text))
    (plan,) = make_plans(definition).values()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.InMemoryStorage()

    def study(of):
        return optuna.create_study(
            study_name=of,
            storage=storage,
            direction="maximize",
            load_if_exists=True,
            sampler=samplers.make_sampler(definition, plan, get_trial_index),
        )

    whole = study("whole")
    for _ in range(6):
        ask(whole, plan)
    for number in range(7):
        ask(study("broken"), plan, lost=number == 4)  # a new process each time
    broken = study("broken")
    assert values_of(broken) == values_of(whole)
    assert len({tuple(row.values()) for row in values_of(whole)}) == 6


def test_a_grid_has_every_combination_once(made):
    text = "sampler: grid\nspace:\n  tuning.rank: {choices: [2, 4]}\n"
    text += "  tuning.dora: {choices: [false, true], when: {tuning.rank: 4}}\n"
    text += "  optimizer.lr: {low: 1e-4, high: 1e-2, log: true, points: 3}\n"
    definition = parsing.read_definition(made(text))
    (plan,) = make_plans(definition).values()
    assert len(plan.list_combinations()) == 3 * (1 + 2)
    (rate,) = [d for d in plan.space if d.name == "optimizer.lr"]
    assert list_levels(rate) == pytest.approx([1e-4, 1e-3, 1e-2])
    design = samplers.make_grid_design(definition, plan)
    seen = [tuple(sorted(design(k).items())) for k in range(9)]
    assert len(set(seen)) == 9


def test_shares_of_a_range_reach_both_ends_and_every_choice(made):
    text = "space:\n  optimizer.lr: {low: 1e-4, high: 1e-2, log: true}\n"
    text += "  tuning.rank: {low: 1, high: 4}\n  tuning.layers: {choices: [1, all]}\n"
    rate, rank, layers = parsing.read_definition(made(text)).space
    assert get_value_at(rate, 0.0) == 1e-4
    assert get_value_at(rate, 0.5) == pytest.approx(1e-3)
    assert [get_value_at(rank, share) for share in (0.0, 0.3, 0.6, 0.999)] == [1, 2, 3, 4]
    assert [get_value_at(layers, share) for share in (0.0, 0.49, 0.5, 0.999)] == [
        1,
        1,
        "all",
        "all",
    ]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("trials=99999999999999999999", r"trials is 99999999999999999999; set it to .* or less"),
        (f"trials={'9' * 5000}", r"trials is 99999999999999999999... \(5000 characters\); set it"),
        ("workers=4294967295", r"workers is 4294967295; set it to 1000000 or less"),
        ("seed=4294967296", r"seed is 4294967296; set it to 4294967295 or less"),
        ("hours=nan", r"hours is nan; set it to a finite number"),
        ("hours=1e300", r"hours is 1e\+300; set it to 1000000 or less"),
        ("epochs=\N{SUPERSCRIPT TWO}", r"epochs is .*; set it to a whole number"),
    ],
)
def test_numbers_that_cannot_be_meant_are_told(word, sentence):
    with pytest.raises(ConfigError, match=sentence):
        parsing.read_definition(["sweep=smoke", word])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("budget: {trails: 3}", "budget.trails is not a known key. Did you mean 'trials'?"),
        ("budget: {trials: many}", "budget.trials is 'many'; set it to a whole number."),
        ("budget: {hours: 0}", "budget.hours is 0.0; set it above 0."),
        ("budget: 4", "budget is a group, not a value; set one of its keys: trials, hours, epochs"),
        ("seeds: 0", "seeds is 0; set it to 1 or more."),
        ("final_seeds: 2.5", "final_seeds is '2.5'; set it to a whole number."),
        ("methods: [full]", "methods takes a mapping"),
        ("methods: {full: lora}", "methods.full is a mapping of keys to values, not 'lora'."),
        ("with: tuning=full", "with is a mapping of keys to values, not 'tuning=full'."),
        ("objectives: {validation: up}", "objectives.validation is 'up'; set it to maximize or"),
        (
            "objectives: {cost.second: minimize}",
            "'cost.second' is none. Did you mean 'cost.seconds'",
        ),
        ("experiment:", "experiment is missing, as in experiment: lora_two_tower."),
        ("pruner: 3", "pruner is a name, or a mapping with one"),
        ("space: {optimizer.lr: 3}", "space.optimizer.lr is a mapping with low and high, or with"),
        (
            "space: {optimizer.lr: {low: 1}}",
            "space.optimizer.lr.high is missing; set it to a number",
        ),
        (
            "space: {optimizer.lr: {low: a, high: 2}}",
            "optimizer.lr.low is 'a'; set it to a number.",
        ),
        (
            "space: {optimizer.lr: {low: true, high: 2}}",
            "optimizer.lr.low is 'True'; set it to a num",
        ),
        (
            "space: {optimizer.lr: {low: 1, high: 2, log: x}}",
            "lr.log is 'x'; set it to true or false.",
        ),
        (
            "space: {optimizer.lr: {low: 1, high: 2, points: 1}}",
            "points is 1; set it to 2 or more.",
        ),
        ("space: {optimizer.lr: {choices: 3}}", "optimizer.lr.choices takes a list"),
        ("space: {optimizer.lr: {choices: [[1]]}}", "each of the choices is a number, a text"),
        (
            "space: {optimizer.lr: {low: 1.5, high: 2.5, type: int}}",
            "type is float, or int with low",
        ),
    ],
)
def test_each_line_of_a_file_is_typed(tmp_path, text, sentence):
    path = tmp_path / "made.yaml"
    lines = {"experiment": "lora_two_tower", "budget": "{trials: 4}"}
    lines["space"] = "{optimizer.lr: {low: 1, high: 2}}"
    key, _, value = text.partition(":")
    path.write_text("".join(f"{k}: {v}\n" for k, v in (lines | {key: value}).items()))
    with pytest.raises(ConfigError) as caught:
        parsing.read_definition([f"sweep={path}"])
    assert str(caught.value).startswith(f"{path}: ")
    assert sentence in str(caught.value)


def test_a_sweep_of_before_has_the_same_folder(made):
    """Its name holds a digest of the question: a value of another type would begin a new sweep."""
    text = (
        "space: {optimizer.lr: {low: 1, high: 2.5}, "
        "tuning.rank: {choices: [1, 2.0, null, a, true], "
        "when: {tuning: lora, x: [1, b]}}, a.b: {low: 1, high: 4, type: float, points: 3}}\n"
        "sampler: {name: tpe, startup: 3}\n"
        "objectives: {validation: maximize, cost.seconds: minimize}\n"
        "with: {optimizer.clip: 3, data: {max_items: 4}}\n"
        "methods: {full: {tuning: full}, lora: {tuning: {name: lora, rank: 3}}}\nseeds: 2\n"
    )
    assert str(parsing.read_definition(made(text)).folder) == "runs/made-73a5026f"
