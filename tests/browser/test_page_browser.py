"""The page in a real browser: by keyboard alone, for screen readers, in both colour schemes, on a narrow screen."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import Chromium
from tests.browser.traffic import ADMIN_TOKEN, give_up, traffic
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import KEYS

# What people act with: each needs a name.
CONTROLS = {"button", "link", "textbox", "combobox", "checkbox", "radio", "searchbox", "image", "DisclosureTriangle"}

# The least contrast of any text with what is behind it, and the text; by WCAG's formula.
CONTRAST = """(() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = rgb => rgb.slice(0, 3).map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
  const behind = one => {
    for (; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  let least = [99, ""];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const one = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
    if (!text || ["SCRIPT", "STYLE", "OPTION", "desc"].includes(one.tagName)) continue;
    const style = getComputedStyle(one), colour = parse(one.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(colour), light(behind(one))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < least[0]) least = [ratio, text];
  }
  return least;
})()"""


@pytest.fixture(scope="module")
def stage(chromium: Chromium) -> Iterator[tuple[RedisServer, SidecarProcess]]:
    with traffic() as both:
        yield both


@pytest.fixture
def browser(chromium: Chromium, stage: tuple[RedisServer, SidecarProcess]) -> Chromium:
    """Nobody is signed in, and nothing has happened yet."""
    chromium.send("Network.clearBrowserCookies")
    chromium.resize(1180, 800)
    chromium.prefer(color_scheme="light")
    chromium.go("about:blank")
    chromium.events.clear()
    return chromium


@pytest.fixture
def url(stage: tuple[RedisServer, SidecarProcess]) -> str:
    return f"http://{stage[1].http}"


def sign_in(browser: Chromium, url: str) -> None:
    """By keyboard."""
    browser.go(f"{url}/")
    browser.tab_to('it.textContent === "Sign in"')
    browser.load(lambda: browser.press("Enter"))
    browser.tab_to('it.type === "password"')
    browser.type(ADMIN_TOKEN)
    browser.load(lambda: browser.press("Enter"))


def accessible(browser: Chromium) -> list[tuple[str, str]]:
    """The role and the name of everything that a screen reader announces."""
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    return [(_value(node, "role"), _value(node, "name")) for node in nodes if not node["ignored"]]


def _value(node: dict[str, Any], what: str) -> str:
    return str(node.get(what, {}).get("value", ""))


def every_page(browser: Chromium, url: str) -> Iterator[str]:
    """Shows one after the other; what it is."""
    browser.go(f"{url}/")
    yield "overview of a stranger"
    browser.go(f"{url}/sign-in")
    yield "sign-in"
    browser.tab_to('it.type === "password"')
    browser.type("wrong")
    browser.load(lambda: browser.press("Enter"))
    yield "wrong token"
    sign_in(browser, url)
    yield "overview"
    browser.go(f"{url}/groups")
    yield "groups"
    browser.load(lambda: browser.evaluate("document.querySelector('form[action=\"/groups/reset\"] button').click()"))
    yield "reset of a group"
    browser.go(f"{url}/dead-letters")
    yield "list"
    browser.load(lambda: browser.evaluate("document.querySelector('table.letters a').click()"))
    yield "letter"
    browser.load(
        lambda: browser.evaluate("document.querySelector('form[action=\"/dead-letters/replay\"] button').click()")
    )
    yield "confirmation"


def test_it_renders_without_complaint_and_asks_nobody_else(browser: Chromium, url: str) -> None:
    pages = list(every_page(browser, url))
    assert len(pages) == 9
    assert [text for text in browser.complaints() if "403" not in text] == []  # which the wrong token gets
    assert {
        address for address in browser.requested() if not address.startswith((f"{url}/", "data:", "about:"))
    } == set()
    assert f"{url}/dead-letters" in browser.requested()


def test_what_is_not_ours_does_not_run(browser: Chromium, url: str) -> None:
    browser.go(f"{url}/")
    browser.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
    until(lambda: any("Content Security Policy" in text for text in browser.complaints()), 5, "it is refused")
    assert browser.evaluate("window.ran === undefined")


def test_a_letter_is_found_read_and_replayed_by_keyboard_alone(
    browser: Chromium, url: str, stage: tuple[RedisServer, SidecarProcess]
) -> None:
    server = stage[0]
    before = server.execute("XLEN", KEYS.dead_letters)
    sign_in(browser, url)
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.textContent") == "Skip to the content"
    browser.press("Enter")
    browser.tab_to('it.name === "text"')
    browser.type("TOKEN_SYMBOL")
    browser.load(lambda: browser.press("Enter"))
    assert browser.evaluate("[...document.querySelectorAll('table.letters a')].map(it => it.textContent)") == [
        "churn-tree/4"
    ]
    browser.tab_to('it.textContent === "churn-tree/4"')
    browser.load(lambda: browser.press("Enter"))
    assert '"name": "churn-tree"' in browser.evaluate("document.querySelector('pre').textContent")
    browser.tab_to('it.textContent === "Replay"')
    browser.load(lambda: browser.press("Enter"))
    assert server.execute("XLEN", KEYS.dead_letters) == before
    browser.tab_to('it.textContent === "Replay 1 dead letter"')
    browser.load(lambda: browser.press("Enter"))
    assert browser.evaluate("document.querySelector('.notice').textContent.trim()") == "1 dead letter replayed."
    assert "churn-tree/4" not in browser.evaluate("document.querySelector('main').textContent")
    assert server.execute("XLEN", KEYS.dead_letters) == before - 1
    assert browser.complaints() == []


def test_a_group_is_removed_by_keyboard_alone(
    browser: Chromium, url: str, stage: tuple[RedisServer, SidecarProcess]
) -> None:
    stage[0].execute("XGROUP", "CREATE", KEYS.events, "tried-out", "0")
    sign_in(browser, url)
    browser.go(f"{url}/groups")
    browser.tab_to('it.getAttribute("aria-label") === "Remove tried-out"')
    browser.load(lambda: browser.press("Enter"))
    assert "These are lost for the group" in browser.evaluate("document.querySelector('main').textContent")
    browser.tab_to('it.textContent === "Remove tried-out"')
    browser.load(lambda: browser.press("Enter"))
    notice = browser.evaluate("document.querySelector('.notice').textContent.trim()")
    assert re.fullmatch(r"The group tried-out is removed: it had \d+ unacknowledged events\.", notice)
    assert "tried-out" not in browser.evaluate("document.querySelector('table').textContent")
    assert browser.complaints() == []


def test_all_that_is_ticked_can_be_discarded(
    browser: Chromium, url: str, stage: tuple[RedisServer, SidecarProcess]
) -> None:
    sign_in(browser, url)
    before = stage[0].execute("XLEN", KEYS.dead_letters)
    for _ in range(2):
        browser.tab_to('it.type === "checkbox"')
        browser.press(" ")
    browser.tab_to('it.textContent === "Discard the selected"')
    browser.load(lambda: browser.press("Enter"))
    browser.tab_to('it.textContent === "Discard 2 dead letters"')
    browser.load(lambda: browser.press("Enter"))
    assert stage[0].execute("XLEN", KEYS.dead_letters) == before - 2


def test_a_screen_reader_announces_everything(browser: Chromium, url: str) -> None:
    spoken: list[tuple[str, str]] = []
    for page in every_page(browser, url):
        spoken = accessible(browser)
        assert [role for role, name in spoken if role in CONTROLS and not name] == [], page
        roles = [role for role, _ in spoken]
        assert {"main", "banner", "contentinfo", "navigation"} <= set(roles), page
        levels = browser.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(it => +it.tagName[1])")
        assert levels[0] == 1
        assert all(after <= level + 1 for level, after in pairwise(levels)), page
        if page == "wrong token":
            assert "alert" in roles
    browser.go(f"{url}/")
    spoken = accessible(browser)
    assert "status" in [role for role, _ in spoken]
    plots = [name for role, name in spoken if role == "image"]
    assert len(plots) == 3
    assert re.match(r"Depth of the slowest group Over the last hour: least [\d,.]+, most [\d,.]+", plots[0])
    assert any(role == "columnheader" and name == "Consumers" for role, name in spoken)
    assert any(role == "rowheader" and name == "deployer-eu" for role, name in spoken)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_colour_schemes(browser: Chromium, url: str, scheme: str, tmp_path: Path) -> None:
    browser.prefer(color_scheme=scheme)
    browser.go(f"{url}/")
    grounds = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", grounds))) > 384) == (scheme == "light")
    for page in every_page(browser, url):
        ratio, text = browser.evaluate(CONTRAST)
        assert 4.5 <= ratio < 99, (page, text)
    browser.go(f"{url}/")
    browser.screenshot(tmp_path / "page.png")
    assert _size(tmp_path / "page.png")[0] == 1180


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (768, "light"), (1280, "light"), (1280, "dark")])
def test_axe_finds_nothing(browser: Chromium, url: str, width: int, scheme: str) -> None:
    """axe-core, with every rule that it has for WCAG and good practice."""
    axe = axe_core()
    browser.resize(width, 800)
    browser.prefer(color_scheme=scheme)
    for page in every_page(browser, url):
        browser.evaluate(f"{axe}; 0")
        found = browser.evaluate(AXE)
        assert found == [], page


def axe_core() -> str:
    """Its source; where it is not installed the test is skipped, with REQUIRE_CHROMIUM=1 that is a failure."""
    spec = find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        what = "axe-playwright-python, which brings axe-core, is not installed"
        if os.environ.get("REQUIRE_CHROMIUM"):
            pytest.fail(what)
        pytest.skip(what)
    return (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")


AXE = """axe.run().then(found => found.violations.map(
  one => `${one.id}: ${one.help}: ${one.nodes.map(node => node.html).join(" ")}`))"""


def test_a_narrow_screen_does_not_scroll_sideways(browser: Chromium, url: str) -> None:
    browser.resize(320, 640)
    for page in every_page(browser, url):
        assert browser.evaluate("document.documentElement.scrollWidth") == 320, page


def test_on_a_narrow_screen_dead_letters_and_groups_are_cards(browser: Chromium, url: str) -> None:
    """Each value below or beside the name, none beyond the screen; and the buttons are in the window."""
    sign_in(browser, url)
    browser.resize(360, 640)
    for path, table in (("/", "groups"), ("/groups", "groups"), ("/dead-letters", "letters")):
        browser.go(f"{url}{path}")
        rows = browser.evaluate(CARDS.replace("TABLE", table))
        assert rows, path
        for cells in rows:
            assert path == "/groups" or all(text for _, _, text in cells), cells
            assert all(left >= 0 and right <= 360 for left, right, _ in cells), cells
    for button in ("Replay the selected", "Discard the selected"):
        place = f"[...document.querySelectorAll('button')].find(it => it.textContent === '{button}')"
        bottom = browser.evaluate(f"{place}.getBoundingClientRect().bottom")
        assert 0 < bottom <= 640, button


CARDS = """[...document.querySelectorAll("table.TABLE tbody tr")].map(row => [...row.children].filter(
  cell => cell.className !== "check").map(cell => {
    const place = cell.getBoundingClientRect();
    return [place.left, place.right, cell.textContent.trim()];
  }))"""


def test_all_that_match_can_be_selected(browser: Chromium, url: str, stage: tuple[RedisServer, SidecarProcess]) -> None:
    """With one box, which takes the place of those of the rows; nothing is done before it is confirmed."""
    for version in ("1", "2"):
        give_up(stage[0], ("all-that-match", version, "SELECTED", "group:deployer-eu", "KeyError: 'x'", 0))
    sign_in(browser, url)
    browser.go(f"{url}/dead-letters?reason=SELECTED")
    browser.tab_to('it.name === "all"')
    label = str(browser.evaluate("document.activeElement.parentElement.textContent"))
    browser.press(" ")
    assert browser.evaluate("document.querySelector('td.check input').disabled")
    browser.tab_to('it.textContent === "Discard the selected"')
    browser.load(lambda: browser.press("Enter"))
    found = re.search(r"Select all (\d+) that match", label)
    assert found
    asked = str(browser.evaluate("document.querySelector('main form button').textContent"))
    assert re.fullmatch(f"Discard {found[1]} dead letters?", asked)


def test_the_figures_keep_up_and_can_be_paused(
    browser: Chromium, url: str, stage: tuple[RedisServer, SidecarProcess]
) -> None:
    quick = browser.send("Page.addScriptToEvaluateOnNewDocument", source=_QUICK)["identifier"]
    try:
        browser.go(f"{url}/")
        with stage[0].client() as client:
            client.xgroup_create(KEYS.events, "newcomer", id="0")
        shown = "document.getElementById('live').textContent.includes('newcomer')"
        until(lambda: browser.evaluate(shown), 5, "the new group is shown")
        change = str(browser.evaluate("document.getElementById('change').textContent"))
        assert "nobody reads for the group newcomer" in change  # read out, once
        browser.tab_to('it.textContent === "Pause updates"')
        browser.press("Enter")
        assert browser.evaluate("document.activeElement.textContent") == "Resume updates"
        asked = len(browser.requested())
        browser.evaluate("new Promise(done => setTimeout(done, 400))")  # in which it would ask eight times
        assert len(browser.requested()) == asked
        browser.prefer(reduced_motion="reduce")
        browser.go(f"{url}/")
        assert browser.evaluate("document.querySelector('#updates button').textContent") == "Resume updates"
    finally:
        browser.send("Page.removeScriptToEvaluateOnNewDocument", identifier=quick)
        stage[0].execute("XGROUP", "DESTROY", KEYS.events, "newcomer")


_QUICK = "const slow = window.setInterval; window.setInterval = work => slow(work, 50);"


def test_it_works_without_javascript(browser: Chromium, url: str) -> None:
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.go(f"{url}/")
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.evaluate("document.querySelector('#state').textContent").startswith("warning: ")
    assert browser.evaluate("document.querySelectorAll('#updates button').length") == 0


def _size(path: Path) -> tuple[int, int]:
    """Of a PNG."""
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return int(width), int(height)
