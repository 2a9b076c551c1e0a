"""The page in a real browser: what it shows of hostile titles, by keyboard, on a small screen."""

import asyncio
import json
import os
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager

import polars as pl
import pytest
import uvicorn

from recsys.serve.app import make_app
from recsys.serve.options import ServeOptions
from recsys.serve.server import bind
from recsys.serve.service import Service
from recsys.trained.lookup import SCHEMA
from recsys.trained.queries import ANY

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TITLES = (
    "<img src=x onerror=\"document.title='broken in'\">",
    "<script>document.title='broken in'</script>",
    "'; DROP TABLE items; --",
    "שלום עולם 🚀",
    "a lamp & a chair",
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


class Shop:
    """Five items, the same for every text."""

    name = "shop"

    def answer(self, queries, k, at, context, choice=ANY):
        rows = [
            {"query": query.label, "rank": n, "item": f"i{n}", "score": 1 / n, "title": title}
            for query in queries
            for n, title in enumerate(TITLES, 1)
        ]
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")


class Browser:
    """A tab of a headless Chromium, spoken to through a pipe."""

    def __init__(self, send, receive, page, focused):
        self.send, self.receive, self.count = send, receive, 0
        self.rest, self.session = b"", None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        made = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = made["sessionId"]
        screen = {"width": 360, "height": 640, "deviceScaleFactor": 1, "mobile": True}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.call("Page.navigate", url=page)
        ready = "document.readyState === 'complete'"
        self.wait(f"{ready} && document.activeElement.id === '{focused}'")

    def call(self, method, **words):
        self.count += 1
        message = {"id": self.count, "method": method, "params": words}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.send, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                piece = os.read(self.receive, 65_536)
                assert piece, "the browser has gone"
                self.rest += piece
            head, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(head)
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def read(self, code):
        result = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, code):
        end = time.monotonic() + 20
        while not self.read(code):
            assert time.monotonic() < end, (code, self.read("document.body.innerText"))
            time.sleep(0.05)

    def press(self, key, number):
        more = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            words = {"type": kind, "key": key, "windowsVirtualKeyCode": number, **more}
            self.call("Input.dispatchKeyEvent", **words)


@contextmanager
def browsing(page, folder, focused="query"):
    """A browser that shows a page, once a field of it has the focus."""
    to_browser, send = os.pipe()
    receive, from_browser = os.pipe()

    def place_pipes():  # where the browser looks for them
        os.dup2(to_browser, 63)
        os.dup2(from_browser, 64)
        os.dup2(63, 3)
        os.dup2(64, 4)

    words = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    words += [f"--user-data-dir={folder}", "--disable-dev-shm-usage", "--no-first-run"]
    process = subprocess.Popen(
        [CHROMIUM, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=place_pipes,
    )
    try:
        os.close(to_browser)
        os.close(from_browser)
        yield Browser(send, receive, page, focused)
    finally:
        process.kill()
        process.wait()
        os.close(send)
        os.close(receive)


@contextmanager
def serving(options):
    service = Service(options, lambda folder: Shop())
    config = uvicorn.Config(make_app(service), log_level="error")
    with bind(options) as held:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([held])))
        thread.start()
        yield f"http://127.0.0.1:{held.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture
def options(tmp_path):
    return ServeOptions(tmp_path / "model", tmp_path / "state", port=0, watch=0)


def test_one_searches_and_likes_by_keyboard_on_a_small_screen(options, tmp_path):
    with serving(options) as page, browsing(page, tmp_path / "browser") as tab:
        tab.call("Input.insertText", text="red lamp")
        tab.wait("document.querySelectorAll('li').length === 5")
        shown = tab.read("[...document.querySelectorAll('.title')].map((e) => e.textContent)")
        assert shown == list(TITLES), "as they are"
        assert tab.read("document.querySelectorAll('li img, li script').length") == 0
        assert tab.read("document.title") == "Recommendations"
        width = "document.documentElement.scrollWidth <= window.innerWidth"
        assert tab.read(width), "nothing is cut off at the side"
        names = "[...document.querySelectorAll('button')].every((e) => e.offsetHeight >= 44)"
        assert tab.read("document.querySelector('#unlock').hidden = true"), "no key is needed"
        assert tab.read(names.replace("('button')", "('li button')")), "large enough for a thumb"
        tab.press("Tab", 9)
        label = tab.read("document.activeElement.getAttribute('aria-label')")
        assert label == f"Like: {TITLES[0]}"
        tab.press("Enter", 13)
        tab.wait("document.querySelector('#status').textContent === 'Kept.'")
        for _ in range(4):
            tab.press("Tab", 9)
        assert tab.read("document.activeElement.textContent") == "Dislike"
        tab.press("Enter", 13)
        tab.wait("document.querySelectorAll('[aria-pressed=true]').length === 2")
        lines = (options.state / "feedback.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        assert [(e["item"], e["event"]) for e in events] == [("i1", "like"), ("i2", "dislike")]
        assert events[0]["user"] == events[1]["user"]


def test_the_page_asks_for_the_key_where_there_is_one(options, tmp_path):
    key = "a-key-of-enough-letters"
    options = ServeOptions(options.folder, options.state, port=0, watch=0, key=key)
    with serving(options) as page, browsing(page, tmp_path / "browser") as tab:
        tab.call("Input.insertText", text="red")
        tab.wait("!document.querySelector('#unlock').hidden")
        assert tab.read("document.querySelectorAll('li').length") == 0
        tab.read("document.querySelector('#key').focus()")
        tab.call("Input.insertText", text=key)
        tab.press("Enter", 13)
        tab.wait("document.querySelectorAll('li').length === 5")
        assert tab.read("document.querySelector('#unlock').hidden")
