import json
import shutil

import pytest

from recsys.config.compose import compose, format_config, read_config
from recsys.fit import __main__ as fit
from recsys.fit import seeds
from recsys.fit.__main__ import main
from recsys.runs.folder import lock_folder, make_folder
from recsys.runtime.files import SEEDS
from recsys.runtime.ranks import FOLDER


@pytest.fixture
def words(shop_words):
    own = ("encoder.", "optimizer.", "trainer.")
    return [*(w for w in shop_words if not w.startswith(own)), "architecture=popularity"]


def folder_of(tmp_path):
    (path,) = (tmp_path / "runs").glob(f"*/{SEEDS}")
    return path.parent


@pytest.mark.slow
def test_seeds_run_one_after_the_other_and_only_what_is_missing_runs_again(words, tmp_path, capfd):
    assert main([*words, "seed=4", "seeds=2"]) == 0
    shown = capfd.readouterr().out
    folder = folder_of(tmp_path)
    runs = seeds.SeedPlan.read(folder).find_runs()
    assert sorted(runs) == [4, 5]
    assert all(seeds.is_finished(run) for run in runs.values())
    group = {read_config(run / "config.yaml").tracking.group for run in runs.values()}
    assert group == {folder.name}
    test = json.loads((runs[4] / "result.json").read_text())["test"]
    assert f"{100 * test['ndcg@10']:.2f}" in shown
    before = (runs[4] / "result.json").stat().st_mtime_ns
    shutil.rmtree(runs[5])
    assert main(["resume=last", f"output={tmp_path / 'runs'}"]) == 0
    again = seeds.SeedPlan.read(folder).find_runs()
    assert seeds.is_finished(again[5])
    assert again[5] != runs[5]
    assert (again[4], (again[4] / "result.json").stat().st_mtime_ns) == (runs[4], before)


@pytest.mark.slow
def test_a_seed_that_ends_badly_ends_the_command_with_its_code(words, tmp_path, capfd):
    events = next(w for w in words if w.startswith("data.source.interactions="))
    gone = [w for w in words if w != events] + [f"data.source.interactions={tmp_path / 'none'}"]
    assert main([*gone, "seeds=2"]) == 2
    shown = capfd.readouterr().err
    assert "seed 0 ended with code 2" in shown
    first = folder_of(tmp_path)
    assert main([*gone, "seeds=2"]) == 2
    again = capfd.readouterr().err
    assert f"resume={first}" in again, "the same words once more begin anew, and say so"
    shutil.rmtree(max((tmp_path / "runs").iterdir(), key=lambda p: (p / SEEDS).stat().st_mtime))
    assert f"resume={folder_of(tmp_path)}" in shown
    assert "seed 1" not in shown


def test_a_rank_goes_on_with_the_run_that_it_is_told(words, tmp_path, monkeypatch):
    """Its command says `last` too, but the run is busy by then: the first process has it."""
    folder = make_folder(str(tmp_path / "runs"), "one", format_config(compose(words)))
    monkeypatch.setenv(FOLDER, str(folder))
    with lock_folder(folder):
        assert fit.find_seeds(["resume=last", f"output={tmp_path / 'runs'}"], planning=True) is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["seeds=0"], "seeds is '0'"),
        (["seeds=three"], "seeds is 'three'"),
        (["seeds=2", "optimizer.rate=1"], "optimizer.rate"),
        (["seeds=2", "resume=last"], "seeds and resume"),
    ],
)
def test_mistakes_are_told_before_a_folder_is_made(words, tmp_path, capsys, more, message):
    assert main([*words, *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_words_that_would_change_the_seeds_to_come_are_refused(tmp_path, capsys):
    folder = tmp_path / "runs" / "some"
    folder.mkdir(parents=True)
    (folder / SEEDS).write_text('{"words": [], "seeds": [0]}')
    assert main([f"resume={folder}", "optimizer.lr=1"]) == 2
    assert "optimizer.lr cannot change" in capsys.readouterr().err
    (folder / SEEDS).write_text('{"words": []}')
    assert main([f"resume={folder}"]) == 2
    assert "damaged" in capsys.readouterr().err
