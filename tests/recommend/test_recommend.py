"""A run that was trained with context is asked in one, with the codes that training had."""

import polars as pl
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.batches.examples import TEST
from recsys.fit.__main__ import main
from recsys.recommend.__main__ import _parse_words
from recsys.recommend.__main__ import main as recommend
from recsys.trained.lookup import parse_moment
from recsys.trained.run import load
from tests.trained.equal_lists import assert_equal_lists

CONTEXT = "architecture.context=[device,hour,weekday]"


@pytest.fixture
def trained(situated_words, tmp_path, monkeypatch):
    """Words of a run, and the folder that it left."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))

    def run(*more):
        words = [*situated_words, "tuning=frozen", "trainer.max_steps=4", *more]
        # What the first steps move is kept, whether it is better or not.
        assert main([*words, "optimizer.lr=0.5", "checkpoint.pick=last"]) == 0
        (folder,) = (tmp_path / "runs").iterdir()
        return words, folder

    return run


def test_hour_weekday_and_columns_are_looked_up_as_in_training(trained, monkeypatch, capsys):
    words, folder = trained(CONTEXT, "data.queries=all")
    made = build.assemble(compose(words))
    noted, inner = [], type(made.recommender).queries

    def note(self, batch, items):
        noted.append(batch)
        return inner(self, batch, items)

    monkeypatch.setattr(type(made.recommender), "queries", note)
    ids, frame = made.tables.items["item"].to_list(), made.tables.interactions
    for event in (1, 2, 3, 4):
        had = ",".join(ids[i] for i in made.split.item[:event])
        device = frame["device"][int(made.split.row[event])] or ""
        when = f"at={int(made.split.time[event]) // 1000}"
        asked = [f"run={folder}", f"history={had}", when, f"context.device={device}"]
        assert recommend([*asked, "k=2"]) == 0
        found = {name: int(of) for name, of in noted[-1].context.items()}
        assert found == {name: int(of[event]) for name, of in made.context_features.codes.items()}
    assert int(made.split.role[4]) == TEST
    said = capsys.readouterr().err
    assert (
        "training has not seen 'watch', which counts as unknown (it has seen desk, phone)" in said
    )


def test_who_asks_elsewhere_or_later_gets_other_scores(trained, capsys):
    _, folder = trained(CONTEXT, "data.queries=all")

    def asked(*more):
        capsys.readouterr()
        assert recommend([f"run={folder}", "user=u3", "k=5", *more]) == 0
        said = capsys.readouterr()
        return said.out, [line for line in said.err.splitlines() if line.startswith("note: ")]

    # Every event of the shop is of two hours of a Sunday.
    sunday, monday = "at=2020-09-13T12:30", "at=2020-09-14T12:30"
    phone = asked(sunday, "context.device=phone")
    assert phone[1] == []
    assert asked(sunday, "context.device=desk")[0] != phone[0]
    assert asked(monday, "context.device=phone")[0] != phone[0]
    assert asked("at=2020-09-13T15:30", "context.device=phone")[0] != phone[0]
    assert asked("at=2020-09-13T12:59", "context.device=phone")[0] == phone[0]
    without, notes = asked(sunday)
    assert notes == ["note: context.device is not given: it counts as unknown."]
    assert asked(sunday, "context.device=") == (without, [])
    unseen, notes = asked(sunday, "context.device=phnoe")
    assert unseen == without
    assert notes == [
        "note: context.device: training has not seen 'phnoe', which counts as unknown (it has "
        "seen phone)."
    ]
    assert asked()[0]  # now, which training has not seen either
    for column, sentence in (
        ("context.hour=12", "the hour is that of the moment; give at="),
        ("context.place=home", "(there are: context.device, at)"),
        ("context.=home", "(there are: context.device, at)"),
    ):
        assert recommend([f"run={folder}", "user=u3", column]) == 2
        assert sentence in capsys.readouterr().err


def test_all_users_are_asked_in_one_context(trained, tmp_path, capsys):
    _, folder = trained(CONTEXT, "data.queries=all")
    path, lists = tmp_path / "lists.parquet", []
    for device in ("phone", "desk"):
        words = [f"run={folder}", "users=all", f"output={path}", "at=2020-09-13T12:30", "k=5"]
        assert recommend([*words, f"context.device={device}"]) == 0
        lists.append(pl.read_parquet(path))
        users = lists[-1]["query"].unique(maintain_order=True)
        assert len(users) == 40
        asked = {"at": "2020-09-13T12:30", "context": {"device": device}, "k": 5}
        assert_equal_lists(lists[-1], load(folder).recommend(users=users.to_list(), **asked))
    assert not lists[0].equals(lists[1])
    capsys.readouterr()
    assert recommend([*words, "context.place=home"]) == 2
    assert "(there are: context.device, at)" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["architecture=popularity"]])
def test_a_run_without_context_is_not_asked_in_one(situated_words, tmp_path, capsys, more):
    own = situated_words
    if more:
        own = [w for w in own if not w.startswith(("encoder.", "optimizer."))]
    assert main([*own, *more, "trainer.max_steps=1"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    capsys.readouterr()
    asked = [f"run={folder}", "user=u3", "k=2"]
    assert recommend(asked) == 0
    assert "note:" not in capsys.readouterr().err
    assert recommend([*asked, "context.device=phone"]) == 2
    assert "was trained without context" in capsys.readouterr().err


def test_a_cross_encoder_is_asked_in_a_context(trained, tiny_bytes, capsys):
    more = ["architecture=cross_encoder", "objective=sampled_softmax", CONTEXT]
    more += ["evaluation.protocol=candidates", "evaluation.candidates=9"]
    _, folder = trained(*more, f"encoder.model={tiny_bytes}", "encoder.max_length=64")
    found = []
    for device in ("phone", "desk"):
        for ask in ("history=001,002", "text=red lamp"):
            capsys.readouterr()
            asked = [f"run={folder}", ask, f"context.device={device}", "at=2020-09-13", "k=3"]
            assert recommend(asked) == 0
            found.append(capsys.readouterr().out)
    assert len(set(found)) == 4


def test_a_context_is_a_column_a_word(capsys):
    assert _parse_words(["run=x", "user=1", "context.device=a:b,c"])["context.device"] == "a:b,c"
    assert recommend(["run=x", "user=1", "context=device:phone"]) == 2
    assert "as in context.device=phone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        ("text=", "text= names no text;"),
        ("text=  ", "text= names no text;"),
        ("history=", "history= names no item;"),
        ("history=001,,002", "history= names no item;"),
        ("user=", "user= names no user;"),
    ],
)
def test_who_asks_for_nothing_is_told(ask, sentence, capsys):
    assert recommend(["run=x", ask]) == 2
    assert sentence in capsys.readouterr().err


def test_an_unknown_id_of_a_sample_says_that_it_is_one(shop_words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    data = [word for word in shop_words if word.startswith(("data", "output"))]
    assert main([*data, "data.max_users=20", "architecture=popularity"]) == 0
    capsys.readouterr()
    asked = ["run=last", f"output={tmp_path / 'runs'}"]
    assert recommend([*asked, "user=196"]) == 2
    assert capsys.readouterr().err.endswith(
        "error: No user has the id '196'. The run keeps a part of the users (data.max_users=20); "
        "ask for one of them.\n"
    )
    assert recommend([*asked, "history=196"]) == 2
    assert "The run keeps" not in capsys.readouterr().err


def test_the_moment_is_now_where_none_is_given(trained, monkeypatch):
    words, _ = trained("architecture.context=[hour]")
    made = build.assemble(compose(words))
    monkeypatch.setattr("time.time", lambda: 5 * 3600.0)
    codes, _ = made.context_features.encode_context(parse_moment("now"), {})
    assert codes["hour"].tolist() == [6]
    assert codes["hour"].dtype == torch.long


def test_a_title_acts_on_no_terminal(shop, shop_words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    head, *lines = (shop / "items.csv").read_text().splitlines()
    evil = [f"{line} \x1b[2J\x1b]0;mine\x07\u202e" for line in lines]
    (tmp_path / "items.csv").write_text("\n".join([head, *evil]) + "\n")
    data = [word for word in shop_words if word.startswith(("data", "output"))]
    assert (
        main([*data, f"data.source.items={tmp_path / 'items.csv'}", "architecture=popularity"]) == 0
    )
    capsys.readouterr()
    assert recommend(["run=last", "user=u3", "k=2", f"output={tmp_path / 'runs'}"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 2
    assert all(sign.isprintable() for sign in shown.replace("\n", ""))
    assert "[2J" in shown, "it is shown, and does nothing"


def test_an_item_that_came_later_is_ranked_by_a_model_of_texts(
    shop, shop_words, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    items = tmp_path / "items.csv"
    items.write_text((shop / "items.csv").read_text())
    words = [*shop_words, f"data.source.items={items}", "tuning=frozen", "trainer.epochs=1"]
    assert main(words) == 0
    assert main([*words, "architecture.item=text+id"]) == 0
    texts, ids = sorted((tmp_path / "runs").iterdir(), key=lambda f: f.stat().st_mtime)
    with items.open("a") as file:
        file.write("999,red red lamp lamp\n")
    capsys.readouterr()
    assert recommend([f"run={texts}", "text=red red lamp lamp", "k=1"]) == 0
    out, err = capsys.readouterr()
    assert out.split()[2] == "999"
    assert "note: the items have changed since the run: 1 new" in err
    assert recommend([f"run={texts}", "user=u3", "k=40"]) == 0
    assert " 999 " in capsys.readouterr().out
    assert recommend([f"run={ids}", "user=u3", "k=40"]) == 0
    assert " 999 " in capsys.readouterr().out
    # What cannot be answered is told before anything is loaded or encoded.
    monkeypatch.setattr(
        "recsys.assembly.encoding.load_pretrained", lambda *_, **__: pytest.fail("it was loaded")
    )
    for asked, said in (
        ([f"run={texts}", "user=nobody"], "nobody"),
        ([f"run={texts}", "history=000,nothing"], "nothing"),
        ([f"run={texts}", "user=u3", "at=noon"], "noon"),
    ):
        assert recommend(asked) == 2
        assert said in capsys.readouterr().err
