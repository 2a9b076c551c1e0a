"""The page of conversations in a real browser: the lists of the terminal, by keyboard and click."""

import json

import pytest

from tests.serve.process import served
from tests.serve.test_page import CHROMIUM, browsing
from tests.trained.conversation.conftest import *  # noqa: F403  (its fixtures)

SHOWN = "JSON.stringify([...document.querySelectorAll('#list .title')].map((e) => e.textContent))"
CHIPS = "JSON.stringify([...document.querySelectorAll('#chips button')].map((e) => e.textContent))"
STATUS = "document.querySelector('#status').textContent"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


@pytest.fixture(scope="module")
def page(tower, tmp_path_factory):
    with served(f"run={tower.folder}", tmp_path_factory.mktemp("state")) as (_, place):
        yield f"{place}/chat"


def press(tab, button):
    """Presses a button by the keyboard."""
    tab.read(f"document.querySelector({json.dumps(button)}).focus()")
    tab.press("Enter", 13)


def name(label):
    """The button that a reader of the screen calls so."""
    return f"[aria-label^={json.dumps(label)}]"


def test_one_converses_by_keyboard_and_click_on_a_small_screen(tower, page, tmp_path):
    own = tower.converse()

    def expect(line):
        """Waits for the list and the chips that the line has in this process."""
        own.say(line)
        titles = json.dumps([each.text for each in own.items], separators=(",", ":"))
        tab.wait(f"{SHOWN} === {json.dumps(titles)}")
        chips = [f"{chip.text} \u00d7" for chip in own.say("list").chips]
        assert json.loads(tab.read(CHIPS)) == chips

    with browsing(page, tmp_path / "browser", "line") as tab:
        tab.call("Input.insertText", text="red lamp")
        tab.press("Enter", 13)
        expect("red lamp")
        assert tab.read(STATUS) == "30 of 30 fit."
        assert tab.read("document.activeElement.id") == "line", "one goes on typing"
        press(tab, name("More like 3:"))
        expect("more like #3")
        assert tab.read("document.activeElement.id") == "list", "what had the focus is gone"
        press(tab, name("Not 1:"))
        expect("not #1")
        press(tab, name("Why 2:"))
        tab.wait("document.querySelectorAll('.why:not([hidden])').length === 1")
        why = tab.read("document.querySelector('.why:not([hidden])').textContent")
        assert why.replace(" ", "") == "".join(own.say("why 2").lines[1:]).replace(" ", "")
        press(tab, "#more")
        expect("more")
        focused = "document.activeElement.getAttribute('aria-label')"
        assert tab.read(focused).startswith("More like 11: "), "one reads on where it goes on"
        press(tab, "#chips li:first-child button")
        expect("drop a")
        press(tab, "[data-say=undo]")
        expect("undo")
        tab.read("document.querySelector('#line').focus()")
        tab.call("Input.insertText", text="no seats")
        tab.press("Enter", 13)
        expect("no seats")
        for width in (360, 1200):
            tab.call(
                "Emulation.setDeviceMetricsOverride",
                **{"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
            )
            fits = "document.documentElement.scrollWidth <= window.innerWidth"
            assert tab.read(fits), f"nothing is cut off at the side of {width} pixels"
            small = "[...document.querySelectorAll('button, input, select')].filter((e) => "
            small += "e.offsetHeight && e.offsetHeight < 44).length"
            assert tab.read(small) == 0, "large enough for a thumb"
        tab.call("Page.reload")
        tab.wait(f"document.readyState === 'complete' && {STATUS}.includes(' of 30 fit')")
        expect("list")
        press(tab, "#anew")
        tab.wait("document.querySelectorAll('#list li, #chips li').length === 0")


def test_a_conversation_begins_with_what_someone_had(tower, page, tmp_path):
    titles = [each.text for each in tower.converse(history=["003", "017"]).open().items]
    with browsing(page, tmp_path / "browser", "line") as tab:
        tab.read(
            "document.querySelector('#kind').value = 'history';"
            "document.querySelector('#kind').dispatchEvent(new Event('change'));"
            "document.querySelector('#who').focus()"
        )
        tab.call("Input.insertText", text="003, 017")
        tab.press("Enter", 13)
        tab.wait("document.querySelectorAll('#list li').length === 10")
        assert json.loads(tab.read(SHOWN)) == titles
        tab.read("document.querySelector('#who').value = 'no such item'")
        tab.press("Enter", 13)
        tab.wait(f"{STATUS}.includes('no such item')")
        assert tab.read("document.querySelectorAll('#list li').length") == 0
