"""A finished run in a notebook recommends what the command does."""

import os

import pytest

from recsys.config.compose import compose, format_config
from recsys.errors import ConfigError, DataError
from recsys.fit.__main__ import main as fit
from recsys.recommend.__main__ import main as recommend
from recsys.trained.run import load


@pytest.fixture(scope="module")
def folder(shop_base, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(root / "cache"))
        words = [*shop_base, "tuning=frozen", f"output={root / 'runs'}"]
        assert fit(words) == 0
    (found,) = (root / "runs").iterdir()
    return found


@pytest.fixture(autouse=True)
def cache(folder, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(folder.parents[1] / "cache"))


def printed(capsys, *words):
    capsys.readouterr()
    assert recommend([*words, "because=false"]) == 0
    return capsys.readouterr().out.splitlines()


def as_printed(frame):
    return [
        f"{row['rank']:>3}  {row['score']:8.4f}  {row['item']:<12}  {row['title']}"
        for row in frame.iter_rows(named=True)
    ]


def test_it_recommends_what_the_command_does_for_many_at_once(folder, capsys):
    run = load(folder)
    users = run.recommend(users=["u3", "u4"], k=4)
    assert users.columns == ["query", "rank", "item", "score", "title"]
    assert users["query"].to_list() == ["u3"] * 4 + ["u4"] * 4
    for user in ("u3", "u4"):
        own = users.filter(query=user)
        assert as_printed(own) == printed(capsys, f"run={folder}", f"user={user}", "k=4")
    histories = run.recommend(histories=[["000", "007"], ["012"]], k=30)
    assert histories["query"].to_list() == ["000,007"] * 28 + ["012"] * 29, "what they had is out"
    own = histories.filter(query="000,007")
    assert as_printed(own) == printed(capsys, f"run={folder}", "history=000,007", "k=30")
    texts = run.recommend(texts=["red lamp"], k=3)
    assert as_printed(texts) == printed(capsys, f"run={folder}", "text=red lamp", "k=3")
    assert run.recommend(users=[]).height == 0


def test_the_model_is_built_the_catalog_encoded_and_the_ids_read_once(folder, monkeypatch):
    from recsys.assembly import build
    from recsys.recommender.base import Recommender
    from recsys.trained import lookup

    counted = []
    assemble, index, ids = build.assemble, Recommender.index_catalog, lookup.IdMap
    monkeypatch.setattr(lookup, "IdMap", lambda of, kind: counted.append(kind) or ids(of, kind))
    monkeypatch.setattr(build, "assemble", lambda *a: counted.append("built") or assemble(*a))
    monkeypatch.setattr(
        Recommender, "index_catalog", lambda self: counted.append("encoded") or index(self)
    )
    run = load(folder)
    first = run.recommend(users=["u1", "u2"])
    assert run.recommend(users=["u1", "u2"]).equals(first)
    assert counted == ["built", "user", "item", "encoded"]
    with pytest.raises(DataError, match="'nobody'"):
        run.recommend(users=["u1", "nobody"])


def test_it_says_what_was_measured(folder):
    run = load("last", folder.parent)
    assert run.folder == folder
    assert run.config.experiment is None
    assert run.metrics == run.result["test"]
    assert f"ndcg@10={run.metrics['ndcg@10']:.4f}" in repr(run)
    shown = run._repr_html_()
    assert f"<td>{100 * run.metrics['ndcg@10']:.2f}</td>" in shown
    assert "<th>popularity</th>" in shown


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "give one of users="),
        ({"users": ["u1"], "texts": ["red"]}, "give one of users="),
        ({"users": "u1"}, r"give a list, as in \['u1'\]"),
        ({"histories": ["000"]}, "a history is the text '000'"),
        ({"texts": [" "]}, "one of the texts is empty"),
        ({"users": ["u1"], "k": 0}, "k is '0'"),
        ({"users": ["u1"], "context": {"device": "phone"}}, "context"),
    ],
)
def test_what_makes_no_sense_raises_an_error(folder, asked, said):
    with pytest.raises(ConfigError, match=said):
        load(folder).recommend(**asked)


def test_a_folder_without_a_finished_run_raises_an_error(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"config\.yaml is missing"):
        load(tmp_path)
    (tmp_path / "config.yaml").write_text((folder / "config.yaml").read_text())
    with pytest.raises(ConfigError, match=r"not complete, result\.json is missing"):
        load(str(tmp_path))
    with pytest.raises(ConfigError, match="no complete run"):
        load("last", tmp_path)


def leave(place, complete=True):
    """A folder that has the files of a run."""
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(format_config(compose(["architecture=popularity"])))
    if complete:
        (place / "result.json").write_text('{"test": {}}')
    return place


def test_a_glob_is_the_newest_complete_run_that_it_names(tmp_path, capsys):
    places = [leave(tmp_path / name) for name in ("lora-1", "lora-2", "full-1", "lora-seeds/a")]
    places.append(leave(tmp_path / "lora-3", complete=False))
    for age, place in enumerate(places):
        os.utime(place / "config.yaml", (age, age))
    assert load(f"{tmp_path}/lora-[12]").folder == places[1]
    assert f"run: {places[1]} (the newest of 2 that match)" in capsys.readouterr().err
    assert load(f"{tmp_path}/lora*").folder == places[3]
    assert "the newest of 3 that match" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no complete run has such a name"):
        load(f"{tmp_path}/lora-3*")
    named = leave(tmp_path / "own[1]")
    assert load(named).folder == named
    assert capsys.readouterr().err == ""
