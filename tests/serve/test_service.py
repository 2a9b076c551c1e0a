"""The service in this process: what it answers, keeps and refuses."""

import asyncio
import json
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date

import httpx
import polars as pl
import pytest

from recsys.errors import ConfigError, DataError, DiskFullError, UnknownIdError
from recsys.fit.__main__ import main as fit
from recsys.serve.app import make_app
from recsys.serve.model import Answered, Asked, load_model, make_json_value
from recsys.serve.options import Limits, ServeOptions, make_options
from recsys.serve.service import Service
from recsys.trained.bundle.write import write_bundle
from recsys.trained.lookup import SCHEMA
from recsys.trained.queries import ANY, Query
from recsys.trained.run import load

KEY = "a-key-of-enough-letters"


@pytest.fixture(scope="module")
def folder(shop_base, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(root / "cache"))
        assert fit([*shop_base, "tuning=frozen", f"output={root / 'runs'}"]) == 0
        (found,) = (root / "runs").iterdir()
        yield found


class Shop:
    """A model whose items are known, and that can be held up."""

    name = "shop"
    titles = tuple(f"i{n}" for n in range(6))

    def __init__(self, mark=0.0):
        self.mark, self.calls, self.free = mark, [], threading.Event()
        self.free.set()

    def answer(self, queries, k, at, context, choice=ANY):
        self.free.wait(10)
        self.calls.append(queries)
        frames = []
        for query in queries:
            if query.user == "nobody" or (query.user or "").startswith("page"):
                raise UnknownIdError("user", query.user, ["somebody"])
            for item in query.history or ():
                if item not in self.titles:
                    raise UnknownIdError("item", item, self.titles)
            if at == "2001-01-01":
                raise DataError("no item can be had")
            had = (query.history or ()) if choice.exclude_seen else ()
            rows = [i for i in self.titles if i not in had][:k]
            frames += [
                {"query": query.label, "rank": r, "item": i, "score": self.mark - r, "title": "t"}
                for r, i in enumerate(rows, 1)
            ]
        return pl.DataFrame(frames, schema=SCHEMA, orient="row")


@asynccontextmanager
async def running(options, load=lambda folder: Shop()):
    app = make_app(Service(options, load))
    async with app.app.router.lifespan_context(app.app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            client.gate = app
            yield client


@pytest.fixture
def options(tmp_path):
    (tmp_path / "model").mkdir()
    return ServeOptions(tmp_path / "model", tmp_path / "state", watch=0)


def ask(options, *bodies, path="/recommend", load=lambda folder: Shop()):
    """The answers to requests, one after the other."""

    async def run():
        async with running(options, load) as client:
            return [await client.post(path, json=body) for body in bodies]

    return asyncio.run(run())


def test_it_answers_as_the_run_does_one_by_one_and_many_at_once(folder, tmp_path):
    options = ServeOptions(folder, tmp_path / "state", watch=0)
    kinds = [
        *({"user": f"u{n}", "k": 4} for n in range(8)),
        *({"history": ["000", f"00{n}"], "k": 5} for n in range(1, 6)),
        *({"text": text, "k": 3} for text in ("red lamp", "green chair", "red lamp")),
    ]

    async def run():
        async with running(options, load_model) as client:
            alone = [await client.post("/recommend", json=body) for body in kinds]
            together = await asyncio.gather(*(client.post("/recommend", json=b) for b in kinds))
            text = (await client.get("/metrics")).text
        return alone, together, text

    alone, together, text = asyncio.run(run())
    run = load(folder)
    for body, one, many in zip(kinds, alone, together, strict=True):
        assert one.status_code == many.status_code == 200
        for row, other in zip(one.json()["items"], many.json()["items"], strict=True):
            assert {**row, "score": 0} == {**other, "score": 0}
            assert row["score"] == pytest.approx(other["score"], rel=1e-6)
        name = {"user": "users", "history": "histories", "text": "texts"}[next(iter(body))]
        frame = run.recommend(**{name: [next(iter(body.values()))]}, k=body["k"])
        rows = one.json()["items"]
        assert [row["item"] for row in rows] == frame["item"].to_list()
        assert [row["score"] for row in rows] == pytest.approx(frame["score"].to_list(), rel=1e-6)
        assert [row["title"] for row in rows] == frame["title"].to_list()
    assert "recsys_batch_queries_sum 32.0" in text
    assert 16 < int(float(text.split("recsys_batch_queries_count ")[1].split("\n")[0])) < 32


def test_no_request_waits_for_a_model_to_be_built(folder, tmp_path, monkeypatch):
    """Whatever is asked first: nothing is opened after the service has begun."""
    bundle = write_bundle(load(folder), tmp_path / "bundle")
    for place in (folder, bundle):
        with monkeypatch.context() as patch:
            service = Service(ServeOptions(place, tmp_path / "state", watch=0), load_model)
            for name in ("run_source.RunSource", "bundle.model.BundleSource"):
                patch.setattr(f"recsys.trained.{name}.open", None)
            patch.setattr("recsys.encoders.pretrained.load.load_pretrained", None)
            asked = [
                Asked(Query(history=("000",)), 3),
                Asked(Query(text="red lamp"), 3),
                Asked(Query(user="u1"), 3, item="001"),
                Asked(Query(text="red lamp"), 3, item="001"),
            ]
            answers = service.holder.answer(asked)
            assert all(isinstance(each, Answered) and each.rows for each in answers), answers
            asyncio.run(service.close())


def test_it_explains_as_the_run_does(folder, tmp_path):
    options = ServeOptions(folder, tmp_path / "state", watch=0)
    bodies = [{"history": ["000", "007"], "item": "001"}, {"user": "u1", "item": "001"}]
    bodies += [{"user": "nobody", "item": "001"}, {"user": "u1"}]
    one, two, *wrong = ask(options, *bodies, path="/explain", load=load_model)
    run = load(folder)
    for answer, why in (
        (one, run.explain("001", history=["000", "007"])),
        (two, run.explain("001", user="u1")),
    ):
        said = answer.json()
        assert said["score"] == pytest.approx(why.score, rel=1e-6)
        assert (said["because"], said["rank"]) == (why.because, why.rank)
        shares = [(each["item"], each["share"]) for each in said["history"]]
        assert shares == [(each.item, pytest.approx(each.share)) for each in why.history]
    assert [answer.status_code for answer in wrong] == [404, 422]
    shop = ServeOptions(folder, tmp_path / "other", watch=0)
    (answer,) = ask(shop, bodies[0], path="/explain")
    assert "explains nothing" in answer.json()["error"]


def test_an_unknown_user_hears_of_no_other_and_only_they_are_not_there(folder, tmp_path):
    options = ServeOptions(folder, tmp_path / "state", watch=0)
    bodies = [{"user": "u1x"}, {"user": "u1", "at": "soon"}, {"user": "u1", "context": {"a": "b"}}]
    unknown, *wrong = ask(options, *bodies, load=load_model)
    assert (unknown.status_code, unknown.json()) == (404, {"error": "No user has the id 'u1x'."})
    assert [answer.status_code for answer in wrong] == [422, 422]
    (explained,) = ask(options, {"user": "u1x", "item": "000"}, path="/explain", load=load_model)
    assert (explained.status_code, explained.json()) == (404, unknown.json())
    with pytest.raises(UnknownIdError, match="the nearest is 'u1'"):  # who has the data may know
        load(folder).recommend(users=["u1x"])


def test_which_items_and_which_columns_are_asked_for_as_of_the_run(folder, tmp_path):
    options = ServeOptions(folder, tmp_path / "state", watch=0)
    red = {"where": "text contains 'red' and item != '001'", "columns": ["name"], "k": 9}
    bodies = [{"history": ["000"], **red}, {"user": "u1", **red}, {"text": "lamp", **red}]
    bodies += [{"history": ["000", "002"], "exclude_seen": False, "k": 30}]
    bodies += [{"history": ["000"], "k": 30}, {"text": "lamp", "where": "item = 'none'"}]
    answers = ask(options, *bodies, load=load_model)
    run = load(folder)
    for answer, body in zip(answers, bodies, strict=True):
        kinds = {"user": "users", "history": "histories", "text": "texts"}
        given = {kinds.get(key, key): [v] if key in kinds else v for key, v in body.items()}
        frame = run.recommend(**given)
        assert answer.status_code == 200, answer.text
        rows = answer.json()["items"]
        assert [row["item"] for row in rows] == frame["item"].to_list()
        if "columns" in body:
            names = [row["columns"] for row in rows]
            assert names == [{"name": name} for name in frame["name"]]
            assert all("red" in row["title"] for row in rows)
    counts = [len(answer.json()["items"]) for answer in answers]
    assert counts[0] == 3, "five are red; one was had, and one is not asked for"
    assert counts[3:] == [30, 29, 0]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"where": "__import__('os').system('ls')"}, "is not understood"),
        ({"where": "year >"}, "the items have no column 'year'"),
        ({"where": "text >"}, "a value is missing at the end"),
        ({"where": ""}, "it is empty"),
        ({"where": "not " * 300 + "text = 'a'"}, "it is too long"),
        ({"where": "text = '" + "a" * 2_000 + "'"}, "at most 2000 characters"),
        ({"where": ["text"]}, "where: "),
        ({"columns": ["nothing"]}, "no further column 'nothing'"),
        ({"columns": ["title"]}, "no further column 'title'"),
        ({"columns": ["a"] * 33}, "at most 32 items"),
        ({"columns": "name"}, "columns: "),
        ({"exclude_seen": "no"}, "exclude_seen: "),
    ],
)
def test_a_wrong_choice_of_items_is_refused_in_a_sentence(folder, tmp_path, more, said):
    options = ServeOptions(folder, tmp_path / "state", watch=0)
    (answer,) = ask(options, {"history": ["000"], **more}, load=load_model)
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_a_value_of_a_table_is_one_of_json():
    values = [float("nan"), [1.5, float("inf")], {"a": 1}, True, date(2024, 5, 1), None, "x"]
    said = [None, [1.5, None], {"a": 1}, True, "2024-05-01", None, "x"]
    assert [make_json_value(each) for each in values] == said


def test_with_what_they_had_comes_what_they_liked_and_not_what_they_disliked(options):
    events = [{"user": "u1", "item": "i0", "event": "dislike"}, {"user": "u1", "item": "i1"}]

    async def run():
        async with running(options) as client:
            await client.post("/feedback", json={"events": events})
            bodies = [{"user": "u1", "k": 2}, {"user": "u1", "k": 2, "exclude_seen": False}]
            return [await client.post("/recommend", json=body) for body in bodies]

    items = [[row["item"] for row in answer.json()["items"]] for answer in asyncio.run(run())]
    assert items == [["i2", "i3"], ["i1", "i2"]]


def test_feedback_on_items_that_a_model_does_not_have_hides_no_others(options):
    def liked(*items):
        return {"events": [{"user": "page-1", "item": item} for item in items]}

    async def run():
        async with running(options) as client:
            await client.post("/feedback", json=liked("gone", "gone too"))
            alone = await client.post("/recommend", json={"user": "page-1", "k": 2})
            await client.post("/feedback", json=liked("i0"))
            return alone, await client.post("/recommend", json={"user": "page-1", "k": 2})

    alone, beside = asyncio.run(run())
    assert (alone.status_code, alone.json()["error"]) == (404, "No user has the id 'page-1'.")
    assert [row["item"] for row in beside.json()["items"]] == ["i1", "i2"]


LONG = "word " * 10_000


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"user": "nobody"}, 404, "No user has the id 'nobody'."),
        ({"user": "u1", "at": "2001-01-01"}, 422, "no item can be had"),
        ({"history": ["none"]}, 422, "No item has the id 'none'"),
        ({"history": []}, 422, "history"),
        ({"text": ""}, 422, "empty"),
        ({"text": " \n"}, 422, "empty"),
        ({"text": LONG}, 422, "characters; give at most"),
        ({}, 422, "give one of"),
        ({"user": "u1", "text": "red"}, 422, "give one of"),
        ({"text": "red", "k": 0}, 422, "k: "),
        ({"text": "red", "k": "3"}, 422, "k: "),
        ({"text": "red", "k": 10**9}, 422, "ask for at most"),
        ({"text": "red", "at": "soon"}, 422, "at="),
        ({"text": "red", "shoes": 1}, 422, "shoes"),
        ({"user": 7}, 422, "user"),
        ([1], 422, ""),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_a_sentence(options, body, status, said):
    (answer,) = ask(options, body)
    assert answer.status_code == status
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    "text",
    [
        "🚀 ✨",
        "שלום עולם",
        "<b>red</b>",
        "'; DROP TABLE items; --",
        "\x00",
        "a\u202eb",
    ],
)
def test_a_text_of_any_script_is_a_text(folder, tmp_path, text):
    options = ServeOptions(folder, tmp_path / "state", watch=0)
    (answer,) = ask(options, {"text": text}, load=load_model)
    assert answer.status_code == 200
    assert len(answer.json()["items"]) == 10


def test_what_is_no_json_too_large_or_of_another_kind_is_refused(options):
    options = replace(options, limits=Limits(max_body=100))

    async def pieces():
        for _ in range(50):
            yield b"[1,2]"

    async def run():
        kind = {"content-type": "application/json"}
        async with running(options) as client:
            post = client.post
            return [
                (await post("/recommend", content=b"{", headers=kind)).status_code,
                (await post("/recommend", content=b"\xff", headers=kind)).status_code,
                (await post("/recommend", content=b'{"text":"\\ud800"}', headers=kind)).status_code,
                (await post("/recommend", content=b"x" * 101, headers=kind)).status_code,
                (await post("/recommend", content=pieces(), headers=kind)).status_code,
                (await post("/recommend", content=b"text=red")).status_code,
                (await client.get("/recommend")).status_code,
                (await client.get("/nothing")).status_code,
                (await client.get("/health", headers={"host": "evil.example"})).status_code,
            ]

    assert asyncio.run(run()) == [400, 400, 422, 413, 413, 415, 405, 404, 400]


def test_without_its_key_only_the_page_and_the_health_answer(options):
    async def run():
        async with running(replace(options, key=KEY)) as client:
            closed = [await client.get(path) for path in ("/metrics", "/docs", "/openapi.json")]
            closed.append(await client.post("/recommend", json={"text": "red"}))
            closed.append(await client.post("/converse", json={"lines": ["red"]}))
            for wrong in ("", "Bearer", f"Bearer {KEY}x", f"Basic {KEY}", "Bearer \u00e9"):
                own = {"authorization": wrong.encode("latin-1")}
                closed.append(await client.get("/metrics", headers=own))
            own = {"authorization": f"Bearer {KEY}"}
            free = ("/", "/page.js", "/page.css", "/chat", "/chat.js", "/shared.js", "/health")
            opened = [await client.get(path) for path in free]
            opened.append(await client.post("/recommend", json={"text": "red"}, headers=own))
            opened.append(await client.get("/metrics", headers={"x-api-key": KEY}))
            return [[each.status_code for each in some] for some in (closed, opened)]

    closed, opened = asyncio.run(run())
    assert set(closed) == {401}
    assert set(opened) == {200}


def test_a_service_with_too_much_to_do_refuses_and_goes_on(options):
    shop = Shop()
    limits = Limits(queue=3, concurrency=8)

    async def run():
        async with running(replace(options, limits=limits), lambda folder: shop) as client:
            shop.free.clear()
            asked = [
                asyncio.create_task(client.post("/recommend", json={"text": f"red {n}"}))
                for n in range(20)
            ]
            while sum(each.done() for each in asked) < 16:  # all but those that wait
                await asyncio.sleep(0.01)
            health = (await client.get("/health")).json()
            shop.free.set()
            return await asyncio.gather(*asked), health

    answers, health = asyncio.run(run())
    codes = [answer.status_code for answer in answers]
    assert codes.count(200) in (3, 4), "the queue, and perhaps one before it"
    assert codes.count(200) + codes.count(429) == 20
    assert health["status"] == "ok", "which is asked also where all else is refused"
    assert all(a.headers["retry-after"] == "1" for a in answers if a.status_code == 429)


def test_a_batch_has_so_many_tokens_and_one_wrong_query_fails_alone(options):
    shop = Shop()
    limits = Limits(batch_tokens=20)
    bodies = [{"text": f"{'a' * 20} {n}"} for n in range(4)]  # of seven tokens each
    bodies += [{"user": "nobody", "k": 2}, {"user": "u1", "k": 2}]

    async def run():
        async with running(replace(options, limits=limits), lambda folder: shop) as client:
            shop.calls.clear()
            return await asyncio.gather(*(client.post("/recommend", json=b) for b in bodies))

    answers = asyncio.run(run())
    assert [answer.status_code for answer in answers] == [200] * 4 + [404, 200]
    texts = [len(call) for call in shop.calls if call[0].text]
    assert sum(texts) == 4
    assert max(texts) == 2


def test_a_batch_has_so_many_queries(options):
    shop = Shop()

    async def run():
        limited = replace(options, limits=Limits(batch_queries=3))
        async with running(limited, lambda folder: shop) as client:
            shop.calls.clear()
            bodies = [{"text": f"red {n}"} for n in range(10)]
            return await asyncio.gather(*(client.post("/recommend", json=b) for b in bodies))

    assert {answer.status_code for answer in asyncio.run(run())} == {200}
    assert max(len(call) for call in shop.calls) == 3
    assert sum(len(call) for call in shop.calls) == 10


def test_a_key_is_compared_whole_in_the_same_time_and_nobody_else_reaches_it_by_default(
    options, monkeypatch
):
    compared = []

    def compare(given, key):
        compared.append((given, key))
        return given == key

    monkeypatch.setattr("recsys.serve.limits.hmac.compare_digest", compare)

    async def run():
        async with running(replace(options, key=KEY)) as client:
            for given in ("", KEY[:-1], KEY):
                await client.get("/metrics", headers={"x-api-key": given})

    asyncio.run(run())
    assert compared == [(each.encode(), KEY.encode()) for each in ("", KEY[:-1], KEY)]
    assert make_options({}, options.folder).host == "127.0.0.1"


def test_what_someone_reacted_to_is_left_out_and_liked_items_stand_for_the_unknown(options):
    events = [
        {"user": "page-1", "item": "i0", "event": "dislike"},
        {"user": "page-1", "item": "i1"},
        {"user": "u1", "item": "i2", "event": "dislike"},
    ]
    shop = Shop()

    async def run():
        async with running(options, lambda folder: shop) as client:
            before = await client.post("/recommend", json={"user": "page-1"})
            kept = await client.post("/feedback", json={"events": events})
            asked = [{"user": name, "k": 3} for name in ("page-1", "u1", "u2")]
            return before, kept, [await client.post("/recommend", json=each) for each in asked]

    before, kept, after = asyncio.run(run())
    assert before.status_code == 404
    assert kept.json() == {"kept": 3}
    items = [[(row["rank"], row["item"]) for row in each.json()["items"]] for each in after]
    assert items == [
        [(1, "i2"), (2, "i3"), (3, "i4")],
        [(1, "i0"), (2, "i1"), (3, "i3")],
        [(1, "i0"), (2, "i1"), (3, "i2")],
    ]
    again = ask(options, {"user": "page-1", "k": 3}, {"user": "u1", "k": 3})
    assert [[row["item"] for row in each.json()["items"]] for each in again] == [
        ["i2", "i3", "i4"],
        ["i0", "i1", "i3"],
    ], "it is known again when the service starts again"
    records = [json.loads(line) for line in (options.state / "feedback.jsonl").open()]
    assert [(r["user"], r["item"], r["label"]) for r in records] == [
        ("page-1", "i0", 0.0),
        ("page-1", "i1", 1.0),
        ("u1", "i2", 0.0),
    ]


def test_an_item_that_was_removed_is_recommended_to_nobody_until_it_is_restored(options):
    async def run(*changes):
        async with running(options) as client:
            told = [await client.post("/items", json=each) for each in changes]
            answer = await client.post("/recommend", json={"text": "red", "k": 3})
            return [each.json() for each in told], [e["item"] for e in answer.json()["items"]]

    assert asyncio.run(run()) == ([], ["i0", "i1", "i2"])
    changes = [{"remove": ["i0", "i2", "later"]}, {"remove": ["i1"], "restore": ["i0"]}]
    told, items = asyncio.run(run(*changes))
    assert told == [{"added": 0, "removed": 3, "unknown": []}] * 2
    assert items == ["i0", "i3", "i4"]
    assert asyncio.run(run())[1] == items, "also when it starts again"
    told, _ = asyncio.run(run({}, {"remove": ["a"], "restore": ["a"]}))
    assert "give items in add, or ids" in told[0]["error"]
    assert "say one of the two" in told[1]["error"]


def test_a_model_is_replaced_without_a_failed_request_and_a_broken_one_never(options):
    models = [Shop(float(n)) for n in range(21)]
    given = iter(models)

    def load(folder):
        model = next(given, None)
        if model is None:
            raise DataError("the folder is damaged")
        return model

    async def run():
        async with running(options, load) as client:
            stop = asyncio.Event()

            async def keep_asking():
                codes = []
                while not stop.is_set():
                    codes.append(
                        (await client.post("/recommend", json={"text": "red"})).status_code
                    )
                return codes

            asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
            swaps = [(await client.post("/reload", json={})).json()["version"] for _ in range(20)]
            stop.set()
            codes = [code for each in await asyncio.gather(*asking) for code in each]
            failed = await client.post("/reload", json={})
            last = await client.post("/recommend", json={"text": "red", "k": 1})
            return swaps, codes, failed, last.json()["items"][0]["score"]

    swaps, codes, failed, score = asyncio.run(run())
    assert swaps == list(range(2, 22))
    assert set(codes) == {200}
    assert len(codes) > 20
    assert (failed.status_code, failed.json()["error"]) == (422, "the folder is damaged")
    assert score == 19.0, "the last one that could be opened answers"


def test_a_changed_folder_is_noticed_and_a_link_followed(options, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text("{}")
    link = tmp_path / "link"
    link.symlink_to("one")
    opened = []

    def load(folder):
        opened.append(folder.name)
        return Shop()

    async def run():
        service = Service(replace(options, folder=link), load)
        assert not service.holder.has_changed()
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").replace(link)
        assert service.holder.has_changed()
        await service.reload()
        assert not service.holder.has_changed()
        await service.close()

    asyncio.run(run())
    assert opened == ["one", "two"]


def test_a_failure_says_where_and_nothing_of_what_was_sent(options, capfd):
    class Broken(Shop):
        def answer(self, queries, k, at, context, choice=ANY):
            if queries[0].text == "secret":
                raise ValueError(f"cannot read {queries[0].text}")
            return super().answer(queries, k, at, context, choice)

    bodies = [{"text": "secret"}, {"text": "red"}]
    failed, after = ask(options, *bodies, load=lambda folder: Broken())
    assert failed.status_code == 500
    assert failed.json() == {"error": "the service failed; where stands in its log."}
    assert after.status_code == 200
    said = "".join(capfd.readouterr())
    assert "in answer" in said
    assert "ValueError" in said
    assert "secret" not in said.replace('queries[0].text == "secret"', "")


def test_a_value_that_training_has_not_seen_is_said_to_who_sent_it_alone(
    situated_words, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    own = ["tuning=frozen", "architecture.context=[device]"]
    assert fit([*situated_words, *own, f"output={tmp_path / 'runs'}"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    options = ServeOptions(run, tmp_path / "state", watch=0)
    capfd.readouterr()
    bodies = [{"user": "u1", "context": {"device": name}} for name in ("zebra", "phone")]
    odd, known = ask(options, *bodies, load=load_model)
    lines = [{**bodies[0], "at": "now", "lines": ["red lamp", "older"][:n]} for n in (0, 1, 2)]
    talked = ask(options, *lines, path="/converse", load=load_model)
    explained = {**bodies[0], "item": "000"}
    (why,) = ask(options, explained, path="/explain", load=load_model)
    for answer in (odd, why, *talked):
        assert answer.status_code == 200
        (note,) = answer.json()["notes"]
        assert "training has not seen 'zebra'" in note
    assert known.json()["notes"] == []
    assert "zebra" not in "".join(capfd.readouterr())


def test_a_full_disk_keeps_nothing_and_says_so(options, monkeypatch):
    async def run():
        async with running(options) as client:
            event = {"user": "u1", "item": "i1"}
            assert (await client.post("/feedback", json={"events": [event]})).status_code == 200
            with monkeypatch.context() as patch:
                patch.setattr("os.fsync", fail)
                failed = await client.post("/feedback", json={"events": [event] * 3})
            health = (await client.get("/health")).json()
            assert (await client.post("/feedback", json={"events": [event]})).status_code == 200
            return failed, health

    def fail(handle):
        raise OSError(28, "No space left on device")

    failed, health = asyncio.run(run())
    assert failed.status_code == 507
    assert health["feedback"] == 1
    assert len((options.state / "feedback.jsonl").read_text().splitlines()) == 2
    assert DiskFullError.code == 5


@pytest.mark.parametrize("left", [b'{"user":"u2","it', b'{"user":\n', b"\0\0\0\n\0\0"])
def test_a_line_that_was_cut_short_is_cut_off(options, left):
    event = {"events": [{"user": "u1", "item": "i1"}]}
    ask(options, event, path="/feedback")
    file = options.state / "feedback.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + left)
    (answer,) = ask(options, event, path="/feedback")
    assert answer.status_code == 200
    assert len(file.read_bytes().splitlines()) == 2
    assert file.read_bytes().startswith(whole)


def test_a_damaged_line_within_and_a_state_in_use_are_refused(options):
    ask(options, {"events": [{"user": "u1", "item": "i1"}]}, path="/feedback")
    file = options.state / "feedback.jsonl"
    service = Service(options, lambda folder: Shop())
    with pytest.raises(ConfigError, match="in use by another service"):
        Service(options, lambda folder: Shop())
    asyncio.run(service.close())
    file.write_bytes(b"no json\n" + file.read_bytes())
    with pytest.raises(DataError, match="line 1 is damaged"):
        Service(options, lambda folder: Shop())


def test_no_answer_lets_a_page_of_another_site_in_and_docs_load_nothing(options):
    async def run():
        async with running(options) as client:
            return [await client.get(path) for path in ("/", "/docs", "/openapi.json")]

    page, docs, schema = asyncio.run(run())
    for answer in (page, docs):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "http://" not in answer.text
        assert "https://" not in answer.text
        assert "<style" not in answer.text
    for path in schema.json()["paths"]:
        assert path in docs.text
    assert "innerHTML" not in (page.text + str(docs.text))
