"""Which runs are one method, what it is called, and names that the user gives."""

import json

import pytest

from recsys.compare import methods
from recsys.compare.__main__ import main
from recsys.compare.finished_runs import find_runs, read_run
from recsys.compare.measures.cost import compute_costs
from recsys.compare.methods import make_short_names
from recsys.config.compose import compose, make_node
from tests.compare.samples import TWO, cases, compared, error_of, leave, ranks


def labels(tmp_path, *runs):
    folders = [leave(tmp_path, f"r{at}", words, cases(ranks(0))) for at, words in enumerate(runs)]
    return [method.label for method in methods.group_runs([read_run(folder) for folder in folders])]


def test_a_label_is_the_experiment(tmp_path):
    lora, floor = ["experiment=lora_two_tower"], ["experiment=popularity"]
    assert labels(tmp_path, lora, floor) == ["lora_two_tower", "popularity"]


def test_another_choice_of_an_axis_is_named_without_its_options(tmp_path):
    lora = ["experiment=lora_two_tower"]
    got = labels(tmp_path, lora, [*lora, "tuning=full"], ["experiment=frozen_two_tower"])
    assert got == [
        "lora_two_tower tuning=lora",
        "lora_two_tower tuning=full",
        "frozen_two_tower",
    ]


def test_labels_differ_in_the_keys_that_differ(tmp_path):
    lora = ["experiment=lora_two_tower"]
    got = labels(tmp_path, [*lora, "tuning.rank=4"], lora, [*lora, "optimizer.lr=0.1"])
    assert got == [
        "lora_two_tower tuning.rank=4 optimizer.lr=0.001",
        "lora_two_tower tuning.rank=8 optimizer.lr=0.001",
        "lora_two_tower tuning.rank=8 optimizer.lr=0.1",
    ]


def test_what_cannot_change_a_result_makes_no_method(tmp_path):
    words = ["trainer.threads=1", "profile=true", "tracking.project=x", "evaluation.k=[5]"]
    more = ["checkpoint.every_minutes=1", "encoder.cache=false", "trainer.log_every=3", "seed=1"]
    assert labels(tmp_path, TWO, [*TWO, *words, *more]) == ["lora two_tower"]


def test_an_encoder_is_what_its_checksum_says(tmp_path):
    def checksum(value):
        return lambda result: result.update(encoder={"sha256": value})

    runs = [
        leave(tmp_path, f"r{at}", [*TWO, f"encoder.model={model}", f"seed={at}"],
              cases(ranks(at)), checksum(value))
        for at, (model, value) in enumerate([("a/x", "1"), ("b/x", "1"), ("c/y", "2")])
    ]  # fmt: skip
    found = methods.group_runs([read_run(folder) for folder in runs])
    assert [method.label for method in found] == [
        "lora two_tower encoder.model=x",
        "lora two_tower encoder.model=y",
    ]
    assert [method.seeds for method in found] == [[0, 1], [2]]


def test_a_key_that_goes_with_a_choice_is_not_told(tmp_path):
    """Every tuning method has a rate of its own, and `full` has it under another key."""
    lora = ["experiment=lora_two_tower", "tuning=lora", "optimizer.lr=0.003"]
    full = ["experiment=lora_two_tower", "tuning=full", "optimizer.encoder_lr=0.0001"]
    causal = "architecture.history=causal"
    assert labels(tmp_path / "a", lora, full) == [
        "lora_two_tower tuning=lora",
        "lora_two_tower tuning=full",
    ]
    assert labels(tmp_path / "b", lora, full, [*lora, causal], [*full, causal]) == [
        "lora_two_tower tuning=lora architecture.history=recency",
        "lora_two_tower tuning=full architecture.history=recency",
        "lora_two_tower tuning=lora architecture.history=causal",
        "lora_two_tower tuning=full architecture.history=causal",
    ]


def test_what_differs_within_a_choice_is_told_where_there_is_such_a_key(tmp_path):
    base = ["experiment=lora_two_tower"]
    got = labels(
        tmp_path,
        [*base, "tuning.rank=4"],
        base,
        [*base, "tuning=full", "optimizer.encoder_lr=0.1"],
        [*base, "tuning=full", "optimizer.encoder_lr=0.2"],
        [*base, "tuning=frozen", "optimizer.lr=0.5"],
    )
    assert got == [
        "lora_two_tower tuning=lora tuning.rank=4",
        "lora_two_tower tuning=lora tuning.rank=8",
        "lora_two_tower tuning=full optimizer.encoder_lr=0.1",
        "lora_two_tower tuning=full optimizer.encoder_lr=0.2",
        "lora_two_tower tuning=frozen",
    ]


def test_encoders_of_one_last_name_are_told_whole(tmp_path):
    models = ["a/x", "b/x"]
    got = labels(tmp_path, *([*TWO, f"encoder.model={model}"] for model in models))
    assert got == [f"lora two_tower encoder.model={model}" for model in models]


def test_methods_that_cannot_be_told_apart_are_refused(tmp_path, capsys):
    """One path, and another model in it."""
    a, b = (
        leave(
            tmp_path, name, TWO, cases(ranks(0)), lambda r, n=name: r.update(encoder={"sha256": n})
        )
        for name in "ab"
    )
    error = error_of([a, b], capsys)
    assert all(part in error for part in (str(a), str(b), "differ in encoder.model", "names=FILE"))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Frozen and LoRA with two seeds, full with one; the folder that holds them."""
    root = tmp_path_factory.mktemp("three")
    for place, name in enumerate(("frozen", "lora", "full")):
        for seed in range(2 - place // 2):
            words = [*TWO, f"tuning={name}", f"seed={seed}"]
            leave(root, f"{name}-{seed}", words, cases(ranks(10 * place + seed)))
    return root


@pytest.fixture
def named(three, tmp_path, monkeypatch):
    """Runs the command from the runs' folder with a file of names; what it leaves."""
    monkeypatch.chdir(three)

    def run(text, *words):
        file, out = tmp_path / "names.yaml", tmp_path / "out"
        file.write_text(text)
        words = [*words, f"names={file}", f"output={out}", "slices=none"]
        assert main(words) == 0
        return json.loads((out / "comparison.json").read_text())

    return run


ALL = '{"Start": ["frozen-*"], "LoRA, r = 8": ["lora-0", "lora-1"], "Full": "full-0"}'


def test_names_stand_in_every_part_and_choose_the_runs_and_the_baseline(named, tmp_path, capsys):
    found = named(ALL, "baseline=LoRA, r = 8")
    names = ["Start", "LoRA, r = 8", "Full"]
    assert [row["label"] for row in found["rows"]] == names
    assert [row["seeds"] for row in found["rows"]] == [[0, 1], [0, 1], [0]]
    assert [row["runs"] for row in found["rows"]][1] == ["lora-0", "lora-1"]
    assert found["question"]["baseline"] == "LoRA, r = 8"
    assert [difference["label"] for difference in found["differences"]] == ["Start", "Full"]
    assert [side["label"] for side in found["users"]] == ["Start", "Full"]
    assert not any("names.yaml" in note for note in found["notes"])
    assert "two_tower" not in capsys.readouterr().out
    for file in ("report.md", "report.html", "table.tex"):
        text = (tmp_path / "out" / file).read_text()
        assert "LoRA, r = 8" in text
        assert "two_tower" not in text


def test_names_change_nothing_but_names(named):
    plain = named("x: full-0", "frozen-0", "frozen-1", "lora-0", "lora-1")
    other = named(ALL, "frozen-0", "frozen-1", "lora-0", "lora-1")
    for found in (plain, other):
        del found["notes"]
    text = json.dumps(other).replace("LoRA, r = 8", "lora two_tower")
    assert json.loads(text.replace("Start", "frozen two_tower")) == plain


def test_a_method_without_a_name_keeps_its_label_and_a_note_says_so(named, tmp_path):
    found = named("Start: [frozen-*]", "*")
    assert [row["label"] for row in found["rows"]] == ["Start", "full two_tower", "lora two_tower"]
    (note,) = [note for note in found["notes"] if "names.yaml" in note]
    assert "has no name for: full two_tower; lora two_tower (" in note


def test_a_name_of_one_run_holds_for_the_method(named):
    found = named("LoRA: lora-1", "lora-0", "lora-1")
    assert [(row["label"], row["seeds"]) for row in found["rows"]] == [("LoRA", [0, 1])]


def test_a_name_of_nothing_that_is_compared_is_a_note(named):
    found = named(ALL, "frozen-*")
    (note,) = [note for note in found["notes"] if "names.yaml" in note]
    assert note.endswith("names what is not compared: LoRA, r = 8; Full.")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: [lora-0]\nb: ['lora-*']", ["lora-0 stands under 'a' and under 'b'"]),
        ("a: [lora-0]\nb: [lora-1]", ["lora-0 is 'a' and", "lora-1 is 'b'", "one method"]),
        ("a: [lora-0, full-0]", ["differ in tuning.name", "both are called 'a'"]),
        ("lora two_tower: [full-0]", ["both are called 'lora two_tower'"]),
        ("a: ['lroa-*']", ["'a': lroa-* names no run"]),
        ("a: []", ["'a': [] is no name with its runs"]),
        ("a: {b: lora-0}", ["'a': {'b': 'lora-0'} is no name"]),
        ("a: [7]", ["'a': [7] is no name", "quotes around numbers"]),
        ("a: [lora-0]\na: [full-0]", ["duplicate key a"]),
        ("", ["names nothing"]),
        ("- lora-0", ["must be a mapping"]),
    ],
)
def test_a_mistake_in_the_names_is_one_sentence(three, tmp_path, monkeypatch, capsys, text, parts):
    monkeypatch.chdir(three)
    file = tmp_path / "names.yaml"
    file.write_text(text)
    error = error_of(["*", f"names={file}", f"output={tmp_path / 'out'}"], capsys)
    assert all(part in error for part in parts), error
    assert not (tmp_path / "out").exists()


def test_the_baseline_is_a_label_or_a_folder_however_it_is_written(three, monkeypatch):
    monkeypatch.chdir(three)
    found = methods.group_runs([read_run(folder) for folder in find_runs(["lora-*", "full-0"])])
    for name in ("full two_tower", "full-0", "./full-0/", str(three / "full-0")):
        assert methods.choose_method(name, found) is found[1]


def test_short_names_are_those_of_a_sweep(tmp_path):
    def shorts(place, *runs):
        folders = [
            leave(tmp_path / place, f"r{at}", words, cases(ranks(0)))
            for at, words in enumerate(runs)
        ]
        return list(
            make_short_names(methods.group_runs([read_run(folder) for folder in folders])).values()
        )

    two, lora = "experiment=frozen_two_tower", "experiment=lora_two_tower"
    causal, cross = "experiment=causal_two_tower", "experiment=lora_cross_encoder"
    popularity = "experiment=popularity"
    assert shorts("plain", [two], [lora], [causal], [popularity], [*TWO, "tuning=full"]) == [
        "frozen", "lora", "causal", "popularity", "full",
    ]  # fmt: skip
    # Whose tuning was replaced is called by that; a sweep's own name comes first.
    assert shorts("replaced", [lora, "tuning=full"], [lora]) == ["full", "lora"]
    tagged = [lora, "tuning.rank=4", 'tracking.tags=["method=small","final"]']
    assert shorts("tagged", tagged, [lora]) == ["small", "lora"]
    assert shorts("cross", [cross], [lora]) == ["lora_cross_encoder", "lora_two_tower"]
    assert shorts("rank", [lora, "tuning.rank=4"], [lora], [two]) == [
        "lora tuning.rank=4", "lora tuning.rank=8", "frozen",
    ]  # fmt: skip


def test_a_baseline_is_found_by_what_only_it_is_called(tmp_path, capsys):
    lora = "experiment=lora_two_tower"
    runs = [[lora, "tuning=frozen"], [lora], [lora, "tuning=full", "tracking.tags=[method=whole]"]]
    folders = [leave(tmp_path, f"r{at}", words, cases(ranks(at))) for at, words in enumerate(runs)]
    found = methods.group_runs([read_run(folder) for folder in folders])
    assert methods.choose_method("frozen", found) is found[0]
    assert methods.choose_method("lora", found) is found[1]
    assert methods.choose_method("whole", found) is methods.choose_method("full", found) is found[2]
    untouched = leave(tmp_path, "r9", ["experiment=zero_shot"], cases(ranks(9)))
    found = methods.group_runs([read_run(folder) for folder in [*folders, untouched]])
    assert methods.choose_method("frozen", found).runs[0].folder == folders[0]
    error = error_of([*folders, "baseline=lora_two_tower"], capsys)
    assert "'lora_two_tower' may be several methods: lora_two_tower tuning=frozen;" in error
    assert "Did you mean 'frozen'?" in error_of([*folders, "baseline=frozne"], capsys)
    zero = leave(tmp_path, "z", ["experiment=zero_shot"], cases(ranks(8)))
    floor = leave(tmp_path, "p", ["experiment=popularity"], cases(ranks(9)))
    assert error_of([zero, floor, "baseline=nosuch"], capsys).endswith(
        "Known: zero_shot, popularity.\n"
    )
    assert "set it to true or false" in error_of([*folders, "details=yes"], capsys)


def test_an_encoder_as_it_is_has_no_seeds(tmp_path):
    """Its one run borrowed the spread over seeds of what trains."""

    def still(start):
        def edit(result):
            result.update(validation={"steps": 0}, floors={start: {"ndcg@10": 0.1}})

        return edit

    runs = [
        leave(tmp_path, f"f{seed}", [*TWO, "tuning=frozen", f"seed={seed}"], cases(ranks(seed)))
        for seed in range(3)
    ]
    words = ["experiment=zero_shot"]
    zero = leave(tmp_path, "z", words, cases(ranks(9)), still("zero-shot"))
    head = leave(tmp_path, "h", words, cases(ranks(9)), still("before training"))
    found, other = compared([*runs, zero]), compared([*runs, head])
    assert [row.trains for row in found.rows if not row.floor] == [True, False]
    assert not any("is taken from" in note for note in found.notes)
    assert any("zero_shot has one seed" in note for note in other.notes)
    floor = leave(tmp_path, "p", ["architecture=popularity"], cases(ranks(9)))
    same = compared([*runs, floor])  # equal figures: the same statistics as a baseline
    assert found.differences[0].found == same.differences[0].found
    assert found.differences[0].found != other.differences[0].found


ENSEMBLE = ["architecture=ensemble"]


def source(name, words, seed, cost=10.0, built_on=(), floors=()):
    """What a result says of a run that it builds on."""
    return {
        "run": f"runs/{name}",
        "sha256": name,
        "experiment": None,
        "seed": seed,
        "cost": {"method_cpu_seconds": cost, "kept_cpu_seconds": 1.0},
        "built_on": list(built_on),
        "config": make_node(compose([*words, f"seed={seed}", f"output=runs/{name}"])),
        "encoder": {},
        "fitted": False,
        "steps": 0 if floors else 9,
        "floors": list(floors),
    }


def ensemble(tmp_path, name, *sources, words=(), cpu=2.0):
    """A run that combines others, whose folders are named in its configuration."""

    def edit(result):
        result["built_on"] = list(sources)
        result["cost"] |= {"method_cpu_seconds": cpu, "kept_cpu_seconds": 0.5}

    named = ",".join(row["run"] for row in sources)
    own = [*ENSEMBLE, f"architecture.members=[{named}]", *words]
    return leave(tmp_path, name, own, cases(ranks(len(name))), edit)


def test_ensembles_of_runs_that_differ_by_their_seed_are_one_method(tmp_path):
    ease = source("ease", ["architecture=ease"], 0)
    runs = [ensemble(tmp_path, f"e{n}", source(f"s{n}", TWO, n), ease) for n in (3, 1, 2)]
    (method,) = methods.group_runs([read_run(run) for run in runs])
    assert method.seeds == [1, 2, 3]
    assert method.trains


def test_ensembles_of_other_methods_are_other_methods_and_named_by_them(tmp_path):
    ease = source("ease", ["architecture=ease"], 0)
    pair = [source("a", TWO, 0), ease]
    other = [source("b", [*TWO, "tuning=full"], 0), ease]
    seeds = [source(f"c{n}", TWO, n) for n in range(3)]
    runs = [ensemble(tmp_path, f"r{n}", *rows) for n, rows in enumerate((pair, other, seeds))]
    found = methods.group_runs([read_run(run) for run in runs])
    assert [method.label for method in found] == [
        "ensemble members=lora+ease",
        "ensemble members=full+ease",
        "ensemble members=3*lora",
    ]


def test_an_ensemble_of_what_does_not_train_has_no_seeds(tmp_path):
    still = source("z", [*TWO, "tuning=frozen"], 0, floors=["zero-shot"])
    run = ensemble(tmp_path, "e", source("ease", ["architecture=ease"], 0), still)
    (method,) = methods.group_runs([read_run(run)])
    assert not method.trains


def test_an_encoder_makes_a_method_of_what_reads_it_without_training(tmp_path):
    def read(name, model):
        words = ["architecture=ease", "architecture.vectors=encoder", f"encoder.model={model}"]
        encoder = {"encoder": {"sha256": model}} if model != "none" else {}
        return leave(tmp_path, name, words, cases(ranks(len(name))), lambda r: r.update(encoder))

    def group(*pairs):
        return methods.group_runs([read_run(read(name, model)) for name, model in pairs])

    assert [m.label for m in group(("a", "x/one"), ("bb", "x/two"))] == [
        "ease encoder.model=one",
        "ease encoder.model=two",
    ]
    words = ["architecture=ease", "encoder.model=other"]  # which nothing reads
    plain = [
        leave(tmp_path, n, [*words[:k], f"seed={k}"], cases(ranks(k)))
        for k, n in ((1, "c"), (2, "d"))
    ]
    assert len(methods.group_runs([read_run(run) for run in plain])) == 1


def vectors_run(tmp_path, name, vectors, words=(), *sources):
    """EASE with item vectors: of its own encoder, or of runs."""
    encoder = {} if sources else {"encoder": {"sha256": "own"}}

    def edit(result):
        result.update({**encoder, "built_on": list(sources)})

    own = ["architecture=ease", f"architecture.vectors={vectors}", *words]
    return read_run(leave(tmp_path, name, own, cases(ranks(len(name))), edit))


def test_whose_vectors_are_read_is_told_without_the_options_of_an_encoder(tmp_path):
    runs = [
        vectors_run(tmp_path, "a", "encoder"),
        vectors_run(tmp_path, "bb", "runs/x", [], source("x", TWO, 0)),
        vectors_run(tmp_path, "ccc", "none"),
    ]
    assert [method.label for method in methods.group_runs(runs)] == [
        "ease architecture.vectors=encoder",
        "ease architecture.vectors=lora",
        "ease architecture.vectors=none",
    ]


def test_vectors_of_two_runs_of_one_name_are_told_apart_by_what_else_differs(tmp_path):
    low = source("x", [*TWO, "tuning.rank=4"], 0)
    runs = [
        vectors_run(tmp_path, "a", "runs/x", ["architecture.l2=100"], low),
        vectors_run(tmp_path, "bb", "runs/y", ["architecture.l2=300"], source("y", TWO, 0)),
    ]
    first, second = (method.label for method in methods.group_runs(runs))
    assert "architecture.l2=100" in first
    assert "architecture.l2=300" in second


def test_the_metric_that_chose_weights_makes_a_method(tmp_path):
    def chosen(name, monitor):
        run = ensemble(tmp_path, name, source("s", TWO, 0), words=[f"evaluation.monitor={monitor}"])
        result = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps({**result, "fit": {}}))
        return read_run(run)

    runs = [chosen("a", "ndcg@10"), chosen("bb", "balanced/ndcg@10")]
    assert len(methods.group_runs(runs)) == 2


def test_members_of_a_version_before_are_what_they_would_be_now(tmp_path):
    old = source("old", TWO, 1)
    del old["config"]["regularization"]["dropout"]
    runs = [ensemble(tmp_path, "a", source("new", TWO, 0)), ensemble(tmp_path, "b", old)]
    assert len(methods.group_runs([read_run(run) for run in runs])) == 1


def test_what_chose_nothing_is_not_told_apart_by_what_would_have_chosen(tmp_path):
    runs = [
        ensemble(tmp_path, name, source("s", TWO, 0), words=[f"architecture.combine={name}"])
        for name in ("rrf", "weighted")
    ]
    result = json.loads((runs[1] / "result.json").read_text())
    (runs[1] / "result.json").write_text(json.dumps({**result, "fit": {}}))
    found = methods.group_runs([read_run(run) for run in runs])
    assert [method.label for method in found] == [
        "ensemble architecture.combine=rrf",
        "ensemble architecture.combine=weighted",
    ]


def test_what_a_run_builds_on_counts_once_in_what_it_costs(tmp_path):
    shared = source("shared", TWO, 0, cost=100.0)
    inner = source("inner", ENSEMBLE, 0, cost=20.0, built_on=[shared])
    run = ensemble(tmp_path, "e", inner, shared, cpu=2.0)
    (method,) = methods.group_runs([read_run(run)])
    cost = compute_costs(method)
    assert cost["method_cpu_seconds"] == 2
    assert cost["method_kept_cpu_seconds"] == 2 + 0.5 + 20 + 1 + 100 + 1
