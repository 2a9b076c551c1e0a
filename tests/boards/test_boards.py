"""Specifications of workspaces and reports, over real runs that logged offline; no connection."""

import json
import math
import re
import shutil
import socket
import sys

import polars as pl
import pytest

from recsys.boards import offline_run, specification, workspaces
from recsys.boards import push as pushing
from recsys.boards.__main__ import main as push
from recsys.boards.specification import BoardSpec, LoggedKey, PanelSpec, RunSet, SectionSpec
from recsys.compare.__main__ import main
from recsys.compare.report import page, wandb_report
from recsys.config.yaml_file import read_mapping
from recsys.errors import ConfigError, DataError
from recsys.fit.__main__ import main as fit
from recsys.tracking import wandb_files
from recsys.tracking.wandb_run import WandbRunInfo, make_summary
from tests.compare import samples


@pytest.fixture(scope="module")
def runs(shop_base, tmp_path_factory):
    root = tmp_path_factory.mktemp("boards")
    words = [*shop_base, "tracking.wandb=offline", "trainer.log_every=2", "tracking.project=shop"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(root / "cache"))
        assert fit([*words, "tuning=lora", f"output={root / 'lora'}"]) == 0
        floor = [word for word in words if not word.startswith(("encoder", "trainer", "opt"))]
        output = f"output={root / 'popularity'}"
        assert fit([*floor, "architecture=popularity", output]) == 0
    return root


def folder(runs, name):
    (found,) = (runs / name).iterdir()
    return found


@pytest.fixture(scope="module")
def compared(runs):
    out = runs / "comparison"
    words = [str(runs / "popularity"), str(runs / "lora"), "wandb=spec", f"output={out}"]
    assert main(words) == 0
    return out


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", "/nowhere")


def flat(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def same(left, right):
    """Equal, where a NaN of the log is a null of the result."""
    lost = [
        value is None or (isinstance(value, float) and math.isnan(value)) for value in (left, right)
    ]
    return all(lost) if any(lost) else left == right


def test_what_was_logged_offline_is_what_the_result_says(runs):
    run = offline_run.read_logged_run(folder(runs, "lora"))
    result = json.loads((folder(runs, "lora") / "result.json").read_text())
    told = make_summary(result)
    for part in ("test", "floors", "slices"):
        assert result[part]
    wrong = {key for key, value in told.items() if not same(run.summary[key], value)}
    assert not wrong
    expected = {f"test/{k}": v for k, v in result["test"].items() if "undefined" not in k}
    expected |= {f"baseline/{n}/{k}": v for n, of in result["floors"].items()
                 for k, v in of.items() if "undefined" not in k}  # fmt: skip
    expected |= {f"slice/item/{part}/{k}": v for part, of in result["slices"]["item"].items()
                 for k, v in of.items()}  # fmt: skip
    expected["validation/best"] = result["validation"]["best"]
    assert {k for k, v in expected.items() if not same(run.summary[k], v)} == set()
    everywhere = run.keys | run.summary.keys()
    assert not [key for key in everywhere if "undefined/" in key or "validation/metrics" in key]
    assert (run.kind, run.name) == ("fit", folder(runs, "lora").name)
    assert run.exit == 0
    rows = offline_run.read_rows(folder(runs, "lora") / "log" / "metrics.csv")
    for step, row in rows:
        sent = {k: v for each in run.history if each["_step"] == step for k, v in each.items()}
        mine = {k: v for k, v in row.items() if v == v and "undefined/" not in k}
        assert mine.items() <= sent.items()


def test_place_and_configuration_are_those_of_the_run(runs):
    run = offline_run.read_logged_run(folder(runs, "lora"))
    config = read_mapping(folder(runs, "lora") / "config.yaml")
    place = WandbRunInfo.from_config(config, folder(runs, "lora"))
    assert (place.project, place.group, place.tags) == (run.project, run.group, run.tags)
    assert (place.name, place.kind) == (run.name, run.kind)
    assert run.project == "shop"
    assert run.config["tuning.name"] == "lora"
    assert run.config["optimizer.lr"] == config["optimizer"]["lr"] == 0.01


def test_an_online_run_without_its_files_has_the_same_keys(runs, tmp_path):
    offline = offline_run.read_logged_run(folder(runs, "lora"))
    copy = tmp_path / "copy"
    shutil.copytree(folder(runs, "lora"), copy)
    shutil.rmtree(copy / "wandb")
    with pytest.raises(ConfigError, match="lacks the run's offline files"):
        offline_run.read_logged_run(copy)
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text.replace("wandb: offline", "wandb: online"))
    found = offline_run.read_logged_run(copy)
    assert found.keys == offline.keys - {"closing table"}
    ours = {key for key in offline.summary if not key.startswith("_")} - {"closing table"}
    assert set(found.summary) == {*ours, "_step"}
    assert all(same(found.summary[k], offline.summary[k]) for k in ours if k.startswith("cost/"))
    (copy / "config.yaml").write_text(text.replace("wandb: offline", "wandb: 'off'"))
    with pytest.raises(ConfigError, match=r"tracking\.wandb=off"):
        offline_run.read_logged_run(copy)


def test_a_torn_file_is_read_up_to_the_tear(runs, tmp_path):
    (whole,) = wandb_files.list_files(
        folder(runs, "lora"), offline_run.read_run_id(folder(runs, "lora"))
    )
    full = list(wandb_files.read_records(whole))
    data = whole.read_bytes()
    torn = tmp_path / "torn.wandb"
    counts = []
    for share in (0.3, 0.6, 0.9):
        torn.write_bytes(data[: int(share * len(data))])
        counts.append(len(list(wandb_files.read_records(torn))))
    assert 0 < counts[0] < counts[1] < counts[2] < len(full)
    torn.write_bytes(data[:7])
    with pytest.raises(DataError, match="killed early"):
        offline_run.replay([torn])
    torn.write_bytes(b"something else")
    with pytest.raises(DataError, match="no file of a Weights & Biases run"):
        offline_run.replay([torn])


def test_records_that_cross_blocks_are_put_together(tmp_path):
    import wandb

    run = wandb.init(
        dir=str(tmp_path), id="long", mode="offline", settings=wandb.Settings(silent=True)
    )
    text = "".join(chr(97 + at % 26) for at in range(3 * wandb_files.BLOCK))
    run.log({"long": text, "after": 1})
    run.finish()
    wandb.teardown()
    found = offline_run.replay(wandb_files.list_files(tmp_path, "long"))
    assert found.summary["long"] == text
    assert found.summary["after"] == 1


def test_every_key_of_a_comparison_exists_in_its_runs(runs, compared):
    found = specification.read_board(compared)
    ran = [offline_run.read_logged_run(folder(runs, name)) for name in ("popularity", "lora")]
    specification.check_board(found, ran)
    panels = [panel for section in found.sections for panel in section.panels]
    assert {panel.kind for panel in panels} == {"bar", "scatter", "line", "comparer"}
    names = {key.name for key in found.list_keys()}
    assert {"val/ndcg@10", "train/loss", "lr/tuned", "distance/tuned"} <= names
    assert {"test/ndcg@10", "cost/cpu_seconds"} <= names
    assert [each.ids for each in found.runs] == [(run.id,) for run in ran]
    assert found.workspace.by == ("architecture.name",)
    assert found.project == "shop"
    text = "\n".join(section.text for section in found.sections)
    report = (compared / "report.md").read_text()
    said = json.loads((compared / "comparison.json").read_text())["sentences"]
    assert said
    assert all(sentence in text and sentence in report for sentence in said)


def test_a_comparison_sends_neither_users_nor_items(compared, tmp_path):
    folders = [
        samples.leave(
            tmp_path,
            name,
            [*samples.TWO, f"tuning={name}"],
            samples.cases(samples.ranks(at, shift=at, count=300)).with_columns(
                brand=pl.col("target").replace("i7", None)
            ),
        )
        for at, name in enumerate(("frozen", "lora"))
    ]
    found = samples.compared(folders, slices=("cold", "brand"))
    whole = page.render_markdown(found)
    sent = [wandb_report._markdown(wandb_report._quality(found))]
    sent += [wandb_report._findings(found).text, wandb_report._held(found)]
    assert re.search(r"\| u\d+ \|", whole)
    assert re.search(r"\| i\d+ \|", whole)
    assert not re.search(r"\b[ui]\d+\b", "\n".join(sent))
    assert "seen in training or not" in sent[0]
    assert "red lamp" not in (compared / "wandb.json").read_text()


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (LoggedKey("summary", "test/nothing"), "none of its runs logged summary test/nothing"),
        (
            LoggedKey("history", "cost/cpu_seconds"),
            "none of its runs logged history cost/cpu_seconds",
        ),
        (LoggedKey("config", "tuning.nothing"), "none of its runs logged config tuning.nothing"),
    ],
)
def test_a_key_that_no_run_has_is_an_error(runs, key, told):
    run = offline_run.read_logged_run(folder(runs, "lora"))
    every = RunSet("all", ids=(run.id,))
    section = SectionSpec("one", "", ("all",), (PanelSpec("bar", "bar", (key,)),))
    made = BoardSpec("title", "shop", "", every, (every,), (), (section,))
    with pytest.raises(ValueError, match=told):
        specification.check_board(made, [run])
    good = SectionSpec(
        "one", "", ("all",), (PanelSpec("bar", "bar", (LoggedKey("summary", "test/mrr"),)),)
    )
    specification.check_board(BoardSpec("title", "shop", "", every, (every,), (), (good,)), [run])
    other = RunSet("all", ids=(run.id, "another"))
    with pytest.raises(ValueError, match="not those of the specification"):
        specification.check_board(
            BoardSpec("title", "shop", "", other, (other,), (), (good,)), [run]
        )


def test_a_specification_is_read_as_it_was_written(compared, tmp_path, capsys):
    found = specification.read_board(compared)
    specification.write_board(found, tmp_path)
    assert specification.read_board(tmp_path) == found
    assert specification.read_board(tmp_path, "team").entity == "team"
    (tmp_path / "wandb.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        specification.read_board(tmp_path)
    with pytest.raises(ConfigError, match=r"wandb\.json is missing; make it with"):
        specification.read_board(tmp_path / "none")


def test_the_workspace_is_built_and_read_again_without_a_connection(compared, no_network):
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.workspaces import internal

    found = specification.read_board(compared)
    model = workspaces.make_workspace(found, "team")._to_model()
    text = model.model_dump_json(by_alias=True, exclude_none=True)
    again = ws.Workspace._from_model(internal.View.model_validate_json(text))
    assert again._to_model().model_dump_json(by_alias=True, exclude_none=True) == text
    assert (again.entity, again.project, again.name) == ("team", "shop", found.title)
    assert [section.name for section in again.sections] == [s.title for s in found.sections]
    for key in found.list_keys():
        assert key.name in text
    assert '"architecture.value.name"' in text
    assert all(run in text for run in found.workspace.ids)


def test_the_report_is_built_and_read_again_without_a_connection(compared, no_network):
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces.reports.v2 import internal

    found = specification.read_board(compared)
    model = workspaces.make_report(found, "team")._to_model()
    text = model.model_dump_json(by_alias=True, exclude_none=True)
    node = json.loads(text)
    node["spec"] = json.dumps(node["spec"])  # as the service gives it
    again = wr.Report._from_model(internal.ReportViewspec.model_validate(node))
    grids = [block for block in again.blocks if isinstance(block, wr.PanelGrid)]
    shown = [section for section in found.sections if section.panels]
    assert [len(grid.panels) for grid in grids] == [len(section.panels) for section in shown]
    assert [[r.name for r in grid.runsets] for grid in grids] == [list(s.runs) for s in shown]
    texts = [block.text for block in again.blocks if isinstance(block, wr.MarkdownBlock)]
    assert texts == [section.text for section in found.sections if section.text]
    places = [(p.layout.x, p.layout.y) for p in grids[0].panels]
    assert len(set(places)) == len(places)


def test_signs_in_a_filter_are_not_taken_for_operators():
    from wandb_workspaces import expr

    runs = RunSet("some", group="a='b' <c>", tags=("tuning=lora", "sweep=x"), ids=("1", "2"))
    tree = expr.filters_tree_to_v2(expr.expr_to_filters(workspaces.format_filter(runs)))
    found = [(leaf["key"]["name"], leaf["op"], leaf["value"]) for leaf in tree["filters"]]
    assert found == [
        ("group", "=", "a='b' <c>"),
        ("tags", "IN", ["tuning=lora", "sweep=x"]),
        ("name", "IN", ["1", "2"]),
    ]


def test_a_push_without_a_key_says_what_to_do(runs, compared, no_network, capsys, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert push([f"push={compared}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: a push needs Weights & Biases: set WANDB_API_KEY")
    assert error.count("\n") == 1
    out = runs / "not-made"
    assert main([str(runs / "lora"), "wandb=push", f"output={out}"]) == 2
    assert "set WANDB_API_KEY" in capsys.readouterr().err
    assert not out.exists()


def test_a_push_without_the_package_says_what_to_do(compared, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert push([f"push={compared}"]) == 2
    assert "pip install 'recsys[reports]'" in capsys.readouterr().err


def test_a_push_saves_the_workspace_and_the_report(compared, monkeypatch, capsys):
    import wandb
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    saved = []
    monkeypatch.setattr(pushing, "check_ready", lambda: None)
    monkeypatch.setattr(wandb, "Api", lambda timeout: type("Api", (), {"default_entity": "me"}))
    for kind in (ws.Workspace, wr.Report):
        monkeypatch.setattr(kind, "save", lambda self: saved.append(self) or self)
        monkeypatch.setattr(kind, "url", property(lambda self: f"https://{self.entity}"))
    assert push([f"push={compared}"]) == 0
    assert push([f"push={compared}", "wandb_entity=team"]) == 0
    assert [each.entity for each in saved] == ["me", "me", "team", "team"]
    assert capsys.readouterr().out.split() == ["https://me"] * 2 + ["https://team"] * 2

    def refuse(self):
        raise wandb.errors.CommError("no such project\nmore")

    monkeypatch.setattr(ws.Workspace, "save", refuse)
    assert push([f"push={compared}"]) == 2
    assert "refuses the push (no such project)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["wandb=pus"], "Did you mean 'push'?"),
        (["wandb_entity=me"], "add wandb=spec"),
    ],
)
def test_a_wrong_word_of_compare_is_told(runs, words, told, capsys):
    assert main([str(runs / "lora"), *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("pusch=x", "pusch is not a known key. Did you mean 'push'?"),
        ("push", "'push' is not of the form key=value, as in push=FOLDER."),
        ("push=", "push is empty"),
    ],
)
def test_a_wrong_word_of_boards_is_told(word, sentence, capsys):
    assert push([word]) == 2
    assert sentence in capsys.readouterr().err


def test_runs_of_several_projects_are_refused(runs):
    run = offline_run.read_logged_run(folder(runs, "lora"))
    other = offline_run.LoggedRun("x", "x", "fit", "other", "g", (), {}, (), {}, 0)
    paths = {folder(runs, "lora"): run, folder(runs, "popularity"): other}
    with pytest.raises(ConfigError, match=r"'shop' at Weights & Biases and .* in 'other'"):
        specification.find_project(paths)


def test_methods_of_the_same_choices_are_told_apart_by_what_differs(runs):
    from recsys.compare.finished_runs import read_run
    from recsys.compare.methods import Method

    one, other = read_run(folder(runs, "lora")), read_run(folder(runs, "lora"))
    other.config["optimizer"]["lr"] = 0.5
    ran = [offline_run.read_logged_run(folder(runs, "lora"))]
    found = wandb_report._telling([Method("a", (one,)), Method("b", (other,))], ran)
    assert found == ("optimizer.lr",)
