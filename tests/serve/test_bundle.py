"""A bundle is served as it answers itself: by user, history and text, over HTTP and on the page."""

import json

import httpx
import pytest

from recsys.fit.__main__ import main as fit
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.write import write_bundle
from recsys.trained.run import load
from tests.serve.process import served
from tests.serve.test_page import CHROMIUM, browsing

ASKED = (
    ("user", "u3", {"users": ["u3"]}),
    ("text", "red lamp", {"texts": ["red lamp"]}),
    ("history", ["000", "007"], {"histories": [["000", "007"]]}),
)
SHOWN = "JSON.stringify([...document.querySelectorAll('.title')].map((e) => e.textContent))"


@pytest.fixture(scope="module")
def bundle(shop_base, tmp_path_factory):
    """A bundle whose run, data and encoder it does not need."""
    root = tmp_path_factory.mktemp("bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(root / "cache"))
        assert fit([*shop_base, "tuning=lora", f"output={root / 'runs'}"]) == 0
        yield write_bundle(load("last", root / "runs"), root / "bundle", users=True)


@pytest.fixture(scope="module")
def url(bundle, tmp_path_factory):
    with served(f"folder={bundle}", tmp_path_factory.mktemp("state")) as (_, place):
        yield place


@pytest.mark.parametrize(("kind", "value", "words"), ASKED)
def test_it_answers_and_explains_as_the_bundle(bundle, url, kind, value, words):
    answer = httpx.post(f"{url}/recommend", json={kind: value, "k": 6}, timeout=20).json()
    model = open_bundle(bundle)
    frame = model.recommend(**words, k=6)
    assert answer["model"] == model.name
    assert [row["item"] for row in answer["items"]] == frame["item"].to_list()
    scores = [row["score"] for row in answer["items"]]
    assert scores == pytest.approx(frame["score"].to_list(), rel=1e-6)
    asked = {kind: value, "item": frame["item"][0]}
    why = httpx.post(f"{url}/explain", json=asked, timeout=20).json()
    own = model.explain(frame["item"][0], **{kind: value})
    assert why["score"] == pytest.approx(own.score, rel=1e-5)
    assert [each["item"] for each in why["history"]] == [each.item for each in own.history]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_the_page_asks_in_each_way_and_says_why(bundle, url, tmp_path):
    model = open_bundle(bundle)
    with browsing(f"{url}/", tmp_path / "browser") as tab:
        for kind, value, words in ASKED:
            titles = model.recommend(**words, k=10)["title"].to_list()
            typed = ",".join(value) if isinstance(value, list) else value
            tab.read(f"kind.value = '{kind}', query.value = '', query.focus()")
            tab.call("Input.insertText", text=typed)
            tab.wait(f"{SHOWN} === {json.dumps(json.dumps(titles, separators=(',', ':')))}")
        tab.read("document.querySelector('[aria-label^=Why]').focus()")
        tab.press("Enter", 13)
        tab.wait("document.querySelector('.why')?.textContent.startsWith('because you had')")
