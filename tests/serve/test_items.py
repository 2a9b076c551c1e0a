"""Items are added, changed and removed while the service runs, as durably as feedback is kept."""

import asyncio
import json
from dataclasses import replace

import httpx
import polars as pl
import pytest

from recsys.errors import DiskFullError
from recsys.fit.__main__ import main as fit
from recsys.serve.model import load_model
from recsys.serve.options import Limits, ServeOptions
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.write import write_bundle
from recsys.trained.run import load
from tests.serve.process import served
from tests.serve.test_service import Shop, running

WORDS = {
    "towers": ["tuning=frozen", "architecture.history=mean"],
    "plain": ["architecture=ease"],
}


@pytest.fixture(scope="module")
def bundles(shop_base, tmp_path_factory):
    root, made = tmp_path_factory.mktemp("runs"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(root / "cache"))

        def get(kind):
            if kind not in made:
                assert fit([*shop_base, *WORDS[kind], f"output={root / kind}"]) == 0
                (run,) = (root / kind).iterdir()
                made[kind] = write_bundle(load(run), root / f"bundle-{kind}")
            return made[kind]

        yield get


@pytest.fixture
def options(bundles, tmp_path):
    return ServeOptions(bundles("towers"), tmp_path / "state", watch=0)


def send(options, *requests, opened=load_model):
    """The answers to paths and bodies, one after the other."""

    async def run():
        async with running(options, opened) as client:
            return [await client.post(path, json=body) for path, body in requests]

    return asyncio.run(run())


RED = {"item": "n1", "text": "red lamp"}
ASK = ("/recommend", {"history": ["000", "001"], "k": 40, "columns": ["name"]})


def list_items(answer):
    assert answer.status_code == 200, answer.text
    return {row["item"]: row for row in answer.json()["items"]}


def test_an_item_is_added_and_changed_as_the_bundle_does_and_after_a_start_too(options):
    add = {"add": [RED, {"item": "n2", "columns": {"name": "blue chair"}}]}
    change = {"add": [{"item": "004", "text": "brown chair"}, {"item": "n2", "text": "white lamp"}]}
    requests = [ASK, ("/items", add), ASK, ("/items", change), ASK]
    before, told, grown, again, changed = send(options, *requests)
    assert "n1" not in list_items(before)
    assert (told.json(), again.json()) == (
        {"added": 2, "removed": 0, "unknown": []},
        {"added": 3, "removed": 0, "unknown": []},
    )
    rows = list_items(grown)
    assert rows["n2"]["title"] == rows["n2"]["columns"]["name"] == "blue chair"
    bundle = open_bundle(options.folder)
    table = pl.DataFrame({"item": ["n1", "n2"], "text": ["red lamp", "blue chair"]})
    want = bundle.recommend(histories=[["000", "001"]], k=40, items=table)
    for row in want.iter_rows(named=True):
        assert rows[row["item"]]["score"] == pytest.approx(row["score"], abs=1e-5)
    rows = list_items(changed)
    assert (rows["004"]["title"], rows["n2"]["title"]) == ("brown chair", "white lamp")
    assert rows["004"]["score"] != pytest.approx(list_items(before)["004"]["score"], abs=1e-6)
    assert rows["003"]["score"] == pytest.approx(list_items(before)["003"]["score"], abs=1e-5)
    after, why, new = send(
        options,
        ASK,
        ("/explain", {"history": ["000", "n1"], "item": "n2"}),
        ("/recommend", {"history": ["n1"], "k": 3}),
    )
    assert list_items(after) == rows, "it starts with what it was told"
    assert why.json()["title"] == "white lamp"
    assert len(list_items(new)) == 3
    lines = (options.state / "items.jsonl").read_text().splitlines()
    assert [json.loads(line)["item"] for line in lines] == ["n1", "n2", "004", "n2"]


def test_what_is_said_of_one_item_does_not_fill_another(options):
    lacking = {"item": "n2", "columns": {"size": "3"}}
    requests = [
        ("/items", {"add": [{"item": "n1", "columns": {"name": "red lamp", "size": 3}}]}),
        ("/items", {"add": [lacking]}),
        ("/items", {"add": [{**lacking, "text": "red chair"}]}),
        ("/recommend", {**ASK[1], "columns": ["size"]}),
    ]
    _, refused, told, answer = send(options, *requests)
    assert "no column 'name'" in refused.json()["error"]
    assert told.json()["added"] == 2
    rows = list_items(answer)
    assert [str(rows[item]["columns"]["size"]) for item in ("n1", "n2")] == ["3", "3"]
    assert rows["003"]["columns"]["size"] is None


def test_a_new_text_of_an_item_leaves_what_else_was_said_of_it(options):
    item = {"name": "red lamp", "size": "3", "maker": "Holm", "available_until": "2020-01-01"}
    news = [
        {"item": "n1", "columns": item},
        {"item": "n1", "text": "red chair"},
        {"item": "n1", "columns": {"size": "4"}},
        {"item": "n1", "text": "red chair", "columns": {"size": "4"}},
        {"item": "n2", "text": "a whole text", "columns": {"maker": "Norr"}},
        {"item": "n2", "columns": {"name": "blue chair"}},
    ]
    then = ("/recommend", {**ASK[1], "at": "2019-01-01", "columns": ["name", "size", "maker"]})
    *told, now, before = send(options, *(("/items", {"add": [each]}) for each in news), ASK, then)
    assert [each.status_code for each in told] == [200, 200, 422, 200, 200, 200]
    assert "no column 'name', of which the run's texts are made" in told[2].json()["error"]
    assert "n1" not in list_items(now), "nobody said that it can be had again"
    assert "n2" in list_items(now)
    rows = list_items(before)
    assert rows["n1"]["title"] == "red chair"
    assert rows["n1"]["columns"] == {"name": "red lamp", "size": "4", "maker": "Holm"}
    assert rows["n2"]["title"] == "blue chair", "of its columns, as the last word has no text"
    assert rows["n2"]["columns"]["maker"] == "Norr"
    bundle = open_bundle(options.folder)
    for each in (news[place] for place in (0, 1, 3, 4, 5)):
        text = {"text": each["text"]} if "text" in each else {}
        row = {"item": each["item"], **text, **each.get("columns", {})}
        bundle = bundle.add_items(pl.DataFrame([row]))
    columns = ["name", "size", "maker"]
    want = bundle.recommend(histories=[["000", "001"]], k=40, at="2019-01-01", columns=columns)
    assert {row["item"] for row in want.iter_rows(named=True)} == rows.keys()
    for row in want.iter_rows(named=True):
        assert rows[row["item"]]["score"] == pytest.approx(row["score"], abs=1e-5)
        assert rows[row["item"]]["columns"] == {name: row[name] for name in columns}
    again_now, again_before = send(options, ASK, then)
    assert list_items(again_now) == list_items(now)
    assert list_items(again_before) == rows, "and it starts with the same"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("NaN", "give a text of at most"),
        ("1e400", "give a text of at most"),
        ("-Infinity", "give a text of at most"),
        ('"\\ud800"', "the text holds half of a surrogate pair"),
    ],
)
def test_a_value_that_json_alone_can_write_is_refused_in_plain_words(options, value, said):
    body = json.dumps({"add": [{"item": "n1", "columns": {"name": "red", "size": "?"}}]})
    body = body.replace('"?"', value)

    async def run():
        async with running(options, load_model) as client:
            head = {"Content-Type": "application/json"}
            return await client.post("/items", content=body, headers=head)

    refused = asyncio.run(run())
    assert refused.status_code == 422
    assert refused.json()["error"].startswith(f"add.0.columns.size: {said}")


def test_an_error_names_no_row_of_what_was_added_before(options):
    late = {"item": "n3", "columns": {"name": "red", "available_from": "soon"}}
    first = [{**RED, "columns": {"available_from": "2019", "available_until": "2030"}}]
    requests = [
        ("/items", {"add": first}),
        ("/items", {"add": [late]}),
        ("/items", {"add": [{"item": "n1", "text": "x", "columns": {"available_from": "2031"}}]}),
    ]
    told, soon, never = send(options, *requests)
    assert told.status_code == 200
    assert (soon.status_code, never.status_code) == (422, 422)
    assert "row 1" in soon.json()["error"]
    assert never.json()["error"].startswith("items: 'n1' is available until a moment that is not")


def test_who_removes_an_item_hears_whether_anybody_knows_it(options):
    requests = [
        ("/items", {"add": [RED], "remove": ["nope", "000"]}),
        ("/items", {"remove": ["n1", "later"], "restore": ["000", "nope", "slip"]}),
        ASK,
    ]
    first, second, answer = send(options, *requests)
    assert first.json() == {"added": 1, "removed": 2, "unknown": ["nope"]}
    assert second.json() == {"added": 1, "removed": 2, "unknown": ["later", "slip"]}
    assert "n1" not in list_items(answer)
    (added,) = send(options, ("/items", {"restore": ["later"]}))
    assert added.json() == {"added": 1, "removed": 1, "unknown": []}, "it was kept as removed"


def test_an_item_that_was_removed_can_be_added_anew(options):
    requests = [
        ("/items", {"add": [RED], "remove": ["000"]}),
        ("/items", {"remove": ["n1"]}),
        ASK,
        ("/items", {"add": [{**RED, "text": "red chair"}]}),
        ASK,
    ]
    first, removed, without, told, back = send(options, *requests)
    assert [each.json()["removed"] for each in (first, removed, told)] == [1, 2, 1]
    assert "n1" not in list_items(without)
    assert list_items(back)["n1"]["title"] == "red chair"
    (again,) = send(options, ASK)
    assert list_items(again) == list_items(back)


def test_no_request_fails_while_items_are_added(options):
    async def run():
        async with running(options, load_model) as client:
            stop, codes = asyncio.Event(), []

            async def keep_asking(body):
                while not stop.is_set():
                    codes.append((await client.post("/recommend", json=body)).status_code)

            asked = [{"user": "u3"}, {"history": ["000"]}, {"text": "red lamp"}]
            asking = [asyncio.create_task(keep_asking(body)) for body in asked]
            told = await asyncio.gather(
                *(
                    client.post("/items", json={"add": [{"item": f"n{n}", "text": "red lamp"}]})
                    for n in range(6)
                )
            )
            stop.set()
            await asyncio.gather(*asking)
            last = await client.post("/recommend", json={"text": "red lamp", "k": 40})
            return [each.status_code for each in told], codes, list_items(last)

    told, codes, rows = asyncio.run(run())
    assert told == [200] * 6
    assert set(codes) == {200}
    assert {f"n{n}" for n in range(6)} < rows.keys()


def test_a_newer_model_has_the_items_as_well_where_it_can_score_them(options, bundles, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(options.folder)
    options = replace(options, folder=link)

    async def run():
        async with running(options, load_model) as client:
            await client.post("/items", json={"add": [RED]})
            await client.post("/reload", json={})
            first = await client.post(ASK[0], json=ASK[1])
            link.unlink()
            link.symlink_to(bundles("plain"))
            reloaded = await client.post("/reload", json={})
            second = await client.post(ASK[0], json=ASK[1])
            refused = await client.post("/items", json={"add": [RED]})
            return first, reloaded, second, refused

    first, reloaded, second, refused = asyncio.run(run())
    assert "n1" in list_items(first)
    assert (reloaded.status_code, reloaded.json()["version"]) == (200, 3)
    assert "n1" not in list_items(second)
    assert refused.status_code == 422
    assert "ease reads no item texts here" in refused.json()["error"]


MANY = [{"item": f"n{n}", "text": "red"} for n in range(3)]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "give items in add"),
        ({"add": [{"item": "n1"}]}, "give the text of the item"),
        ({"add": [{"item": "", "text": "red"}]}, "at least 1"),
        ({"add": [{"item": "n1", "text": " "}]}, "add.0: the text of 'n1' is empty; give what"),
        ({"add": [{"item": "n1", "columns": {"name": " "}}]}, "items: 'n1' has an empty text"),
        ({"add": [{"item": "n1", "columns": {"size": 3}}]}, "no column 'name'"),
        ({"add": [{"item": "n1", "columns": {"text": "x"}}]}, "is no further column"),
        ({"add": [{"item": "n1", "text": "red", "more": 1}]}, "more"),
        ({"add": [{**RED, "columns": {"available_from": "soon"}}]}, "soon"),
        ({"add": [{**RED, "columns": {"available_from": True}}]}, "available_from"),
        ({"add": [{**RED, "columns": {"name": ["red"]}}]}, "which is String in the catalog"),
        ({"add": [{**RED, "columns": {"size": {"a": 1}}}]}, "add.0.columns.size: give a text of"),
        ({"add": [{**RED, "columns": {"size": [5]}}]}, "add.0.columns.size: give a text of"),
        ({"add": [{**RED, "columns": {"": 1}}]}, "add.0.columns, name of a column: give at"),
        ({"add": [{"item": 7, "text": "red"}]}, "add.0.item: give a text in quotes"),
        ({"add": [{"item": "n1", "text": 7}]}, "add.0.text: give a text in quotes"),
        ({"add": "n1"}, "add: give a list in brackets"),
        ({"add": [RED, RED]}, "twice"),
        ({"add": [RED], "remove": ["n1"]}, "stands in two lists"),
        ({"add": [{"item": "n1", "text": "r" * 41}]}, "has 41 characters; give at most 40"),
        ({"add": MANY}, "more than max_added=2"),
        ({"add": MANY, "remove": ["a", "b"]}, "at most 4 items at once"),
    ],
)
def test_what_cannot_be_added_is_refused_and_changes_nothing(options, body, said):
    limits = Limits(max_text=40, max_added=2, max_events=4)
    refused, told = send(
        replace(options, limits=limits), ("/items", body), ("/items", {"remove": ["a"]})
    )
    assert refused.status_code == 422, refused.text
    assert said in refused.json()["error"]
    for words in ("function-", "Input should", "Value error", "items: items"):
        assert words not in refused.json()["error"]
    assert told.json() == {"added": 0, "removed": 1, "unknown": ["a"]}


def test_nothing_is_in_use_that_could_not_be_kept(tmp_path, monkeypatch):
    class Growing(Shop):
        def add_items(self, items):
            grown = Growing()
            grown.titles = (*self.titles, *items["item"])
            return grown

    (tmp_path / "model").mkdir()
    options = ServeOptions(tmp_path / "model", tmp_path / "state", watch=0)
    monkeypatch.setattr(
        "recsys.serve.records.journal.Journal._write",
        lambda self, content: (_ for _ in ()).throw(DiskFullError("the disk is full")),
    )
    ask = ("/recommend", {"text": "red", "k": 40})
    refused, answer = send(
        options, ("/items", {"add": [RED]}), ask, opened=lambda folder: Growing()
    )
    assert refused.status_code == 507
    assert "n1" not in list_items(answer)


@pytest.mark.slow
def test_what_was_added_is_there_after_the_service_was_killed(options, tmp_path):
    words = f"folder={options.folder}"
    with served(words, tmp_path / "own") as (process, place):
        answer = httpx.post(f"{place}/items", json={"add": [RED]}, timeout=60)
        assert answer.json() == {"added": 1, "removed": 0, "unknown": []}
        process.kill()
    with served(words, tmp_path / "own") as (_, place):
        assert "n1" in list_items(httpx.post(f"{place}{ASK[0]}", json=ASK[1], timeout=60))
