"""A run takes the items of its data as they are now: new ones, gone ones, changed texts."""

import random
import re

import polars as pl
import pytest

from recsys.errors import ConfigError, DataError
from recsys.fit.__main__ import main as fit
from recsys.recommend.__main__ import main as recommend
from recsys.runtime.files import CATALOG
from recsys.testing.shop import make_shop_words, write_encoder, write_shop
from recsys.trained.bundle.write import write_bundle
from recsys.trained.run import load

MOVED = ["optimizer.lr=0.05", "trainer.max_steps=4", "checkpoint.pick=last"]
KINDS = {
    "towers": ["tuning=lora", "architecture.history=mean", *MOVED],
    "ids": ["tuning=lora", "architecture.item=text+id", *MOVED],
    "prior": ["tuning=frozen", "architecture.popularity=true", *MOVED],
    "tags": ["tuning=frozen", "architecture.categories=[kind]", *MOVED],
    "sasrec": ["architecture.item=id", "architecture.history=causal", "tuning=frozen", *MOVED],
    "ease": ["architecture=ease"],
    "item_knn": ["architecture=item_knn"],
    "popularity": ["architecture=popularity"],
}
WITHOUT = ("sasrec", "ease", "item_knn", "popularity")
"""What has no score for a new item."""
COUNTS = ("prior", "ease", "item_knn", "popularity")
"""What counts the events of all items, those that are gone by now among them."""
HISTORIES = [["000", "007"], ["012"], ["003", "001", "003"]]
NEW, GONE, CHANGED = "030", "029", "004"


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    words = make_shop_words(write_shop(tmp_path), write_encoder(tmp_path / "encoder"))
    rows = [line.split(",") for line in (tmp_path / "items.csv").read_text().splitlines()[1:]]
    write_items(tmp_path, [(item, name, kind_of(name)) for item, name in rows])

    def train(*more, name="run"):
        assert fit([*words, f"output={tmp_path / name}", *more]) == 0
        (folder,) = (tmp_path / name).iterdir()
        return folder

    return train


def kind_of(name):
    return "light" if "lamp" in name else name.split()[-1]


def read_items(place):
    return [tuple(line.split(",")) for line in (place / "items.csv").read_text().splitlines()[1:]]


def write_items(place, rows):
    lines = [",".join(row) + "\n" for row in rows]
    (place / "items.csv").write_text("what,name,kind\n" + "".join(lines))


def change(place, gone=True):
    """Another order, a new item, another text, and one item less, whose events stay."""
    rows = [row for row in read_items(place) if not (gone and row[0] == GONE)]
    rows = [(item, "green chair" if item == CHANGED else name, k) for item, name, k in rows]
    rows.append((NEW, "red lamp", "light"))
    random.Random(1).shuffle(rows)
    write_items(place, rows)


def ask(run):
    found = run.recommend(histories=HISTORIES, k=40, exclude_seen=False)
    return {(row["query"], row["item"]): row["score"] for row in found.iter_rows(named=True)}


@pytest.mark.parametrize("kind", KINDS)
def test_learned_rows_go_with_their_ids(kind, shop, tmp_path, capsys):
    folder = shop(*KINDS[kind])
    before = ask(load(folder))
    change(tmp_path, gone=kind not in COUNTS)
    capsys.readouterr()
    after = ask(load(folder))
    said = re.findall("note: (.*)", capsys.readouterr().err)
    left = " (left out: they have no score without a fit)" if kind in WITHOUT else ""
    gone = {} if kind in COUNTS else {GONE: "1 gone, "}
    assert said == [
        f"the items have changed since the run: 1 new{left}, {''.join(gone.values())}"
        "1 with another text"
    ]
    items = {item for _, item in after}
    assert (NEW in items) is (kind not in WITHOUT)
    assert not items & gone.keys()
    reads = kind not in WITHOUT
    same = {key for key in before if key[1] not in gone and not (reads and key[1] == CHANGED)}
    assert {key: after[key] for key in same} == pytest.approx(
        {key: before[key] for key in same}, abs=1e-5
    )
    if reads:
        assert after["012", CHANGED] != pytest.approx(before["012", CHANGED], abs=1e-6)


@pytest.mark.parametrize("kind", ["ease", "tfidf"])
def test_of_items_that_are_gone_nothing_counts(kind, shop, tmp_path, capsys):
    folder = shop(f"architecture={kind}")
    rows = [row for row in read_items(tmp_path) if row[0] != GONE]
    write_items(tmp_path, rows)
    found = load(folder).recommend(users=["u5", "u11"], k=40, exclude_seen=False)
    assert set(found["item"]) == {row[0] for row in rows}
    assert found["score"].is_finite().all()
    assert "the items have changed since the run: 1 gone\n" in capsys.readouterr().err
    assert recommend([f"run={folder}", f"history={GONE}"]) == 2
    assert f"No item has the id '{GONE}'" in capsys.readouterr().err


def test_an_ensemble_and_vectors_of_a_run_follow(shop, tmp_path, capsys):
    towers = shop(*KINDS["towers"], name="towers")
    texts = shop(
        "architecture=ease", f"architecture.vectors={towers}", "architecture.rho=30", name="texts"
    )
    sasrec = shop(*KINDS["sasrec"], name="sasrec")
    members = f"architecture.members=[{texts},{sasrec}]"
    both = shop("architecture=ensemble", members, "architecture.combine=rrf", name="both")
    own = read_items(tmp_path)
    write_items(tmp_path, [*own, (NEW, "red lamp", "light")][::-1])
    capsys.readouterr()
    for folder in (texts, both):
        found = load(folder).recommend(histories=[["000", "001"]], k=40)
        assert NEW in set(found["item"])
        said = re.findall("note: (.*)", capsys.readouterr().err)
        assert said == ["the items have changed since the run: 1 new"]
    write_items(tmp_path, own)
    direct = load(texts).recommend(histories=[["000", "001"]], k=40)
    assert NEW not in set(direct["item"])
    assert "note: " not in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["ids", "ease"])
def test_other_events_or_a_run_without_a_record_raise_the_error_as_before(kind, shop, tmp_path):
    folder = shop(*KINDS[kind])
    write_items(tmp_path, [*read_items(tmp_path), (NEW, "red lamp", "light")])
    kept = (folder / CATALOG).read_bytes()
    (folder / CATALOG).unlink()
    with pytest.raises(ConfigError, match="the data has changed since the run; run fit again"):
        ask(load(folder))
    (folder / CATALOG).write_bytes(kept)
    ask(load(folder))
    if kind == "ease":
        with pytest.raises(ConfigError, match="items have come since, for which the run has no"):
            write_bundle(load(folder), tmp_path / "bundle")
    with (tmp_path / "events.csv").open("a") as events:
        events.write(f"u3,{NEW},1600009999,5\n")
    with pytest.raises(ConfigError, match="the data has changed since the run; run fit again"):
        ask(load(folder))
    (folder / CATALOG).write_bytes(kept[:-9])
    with pytest.raises(DataError, match=r"catalog\.parquet is damaged; run fit again"):
        ask(load(folder))


def test_new_items_come_to_changed_ones(shop, tmp_path, capsys):
    folder = shop(*KINDS["ids"])
    change(tmp_path)
    (tmp_path / "more.csv").write_text(f"item,name,kind\n031,blue lamp,light\n{NEW},red chair,x\n")
    run = load(folder).add_items(tmp_path / "more.csv")
    found = run.recommend(histories=HISTORIES, k=40, exclude_seen=False)
    assert {NEW, "031"} < set(found["item"])
    assert set(found.filter(item=NEW)["title"]) == {"red chair"}
    said = re.findall("note: (.*)", capsys.readouterr().err)
    assert said[-1] == (f"{tmp_path / 'more.csv'}: 1 new item, 1 with another text, encoded anew")


@pytest.mark.parametrize("kind", ["ease", "towers"])
def test_who_has_nothing_left_is_answered_as_someone_without_a_history(
    kind, shop, tmp_path, capsys
):
    folder = shop(*KINDS[kind])
    events = [line.split(",") for line in (tmp_path / "events.csv").read_text().splitlines()[1:]]
    had = {item for user, item, *_ in events if user == "u1"}
    write_items(tmp_path, [row for row in read_items(tmp_path) if row[0] not in had])
    run, everyone = load(folder), {user for user, *_ in events}
    capsys.readouterr()
    own = run.recommend(users=["u1"], k=5)
    said = re.findall("note: (.*)", capsys.readouterr().err)
    assert said == [f"the items have changed since the run: {len(had)} gone"]
    assert own.drop("query").equals(run.recommend(histories=[[]], k=5).drop("query"))
    lists = pl.read_csv(run.write_lists(tmp_path / "lists.csv", k=5))
    assert set(lists["query"]) == everyone
    assert (
        lists.filter(query="u1")["item"].cast(pl.Int64).to_list()
        == own["item"].cast(pl.Int64).to_list()
    )


def test_a_table_of_users_stays_as_it_was(shop, tmp_path, capsys):
    users = [f"u{n}" for n in range(40)] + ["guest"]
    (tmp_path / "users.csv").write_text("\n".join(["who", *users, ""]))
    folder = shop(*KINDS["ease"], f"data.source.users={tmp_path / 'users.csv'}")
    capsys.readouterr()
    assert len(load(folder).recommend(users=["guest"], k=3)) == 3
    assert "note: " not in capsys.readouterr().err, "the data is the same"


@pytest.mark.parametrize("kind", ["ids", "ease"])
def test_the_note_says_what_is_another(kind, shop, tmp_path, capsys):
    folder, rows = shop(*KINDS[kind]), read_items(tmp_path)
    before = ask(load(folder))
    for place, (rows_now, said) in enumerate(
        (
            (rows[::-1], "their order alone"),
            ([(a, b, "x") for a, b, _ in rows], "further columns, or what is said of users"),
            (
                [(a, b, "x") for a, b, _ in rows[::-1]],
                "their order, and further columns, or what is said of users",
            ),
        )
    ):
        write_items(tmp_path, rows_now)
        capsys.readouterr()
        assert ask(load(folder)) == pytest.approx(before, abs=1e-5), place
        note = "the items have changed since the run: "
        assert re.findall("note: (.*)", capsys.readouterr().err) == [note + said]


def test_a_table_without_items_is_named(shop, tmp_path):
    folder = shop(*KINDS["ease"])
    write_items(tmp_path, [])
    with pytest.raises(DataError, match=r"items\.csv: no items are left"):
        ask(load(folder))
