"""Every page of the console in a real browser: readable by everybody, on any screen, and closed in itself."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

import pytest
from browser.visit import HOSTILE_SERVICE, Visit
from harness.registry import Registry
from harness.routes import every_route
from playwright.async_api import Browser, Page, Response
from starlette.routing import compile_path

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text()
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RUN = """async (rules) => {
  const told = await axe.run(document, {runOnly: rules});
  const nodes = (one) => one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ");
  return told.violations.map((one) => `${one.id}: ${nodes(one)}`);
}"""

_OVERFLOWING = """[...document.querySelectorAll("thead th")]
  .filter((head) => head.clientWidth > 1 && head.scrollWidth > head.clientWidth).map((head) => head.textContent)"""
"""Heads of columns that reach over the next one."""

_BAR_COVERS_NOTHING = """() => {
  scrollTo({top: document.body.scrollHeight, behavior: "instant"});
  const bar = document.getElementById("picked").getBoundingClientRect();
  const pressed = [...document.querySelectorAll("#endpoints a, #endpoints button, #endpoints input")];
  return bar.height > 0 && pressed.every((one) => one.getBoundingClientRect().bottom <= bar.top);
}"""
"""The end of the page is in view, where the bar of actions lies below all rows; it moves while rows come or change."""

PAGES = {
    "overview": "/ui/overview",
    "services": "/ui/services",
    "service": "/ui/services/checkout",
    "filtered": "/ui/services/checkout?show=metadata&metadata=stage%3Dblue",
    "past": "/ui/services/checkout/past",
    "shift": "/ui/services/search/shift",
    "no-shift": "/ui/services/cart/shift",
    "hostile-past": f"/ui/services/{HOSTILE_SERVICE}/past",
    "endpoint": "/ui/services/checkout/endpoints/10.0.1.3:8080",
    "drained": "/ui/services/checkout/endpoints/10.0.1.5:8080",
    "silent": "/ui/services/fleet?status=SILENT",
    "silent-endpoint": "/ui/services/fleet/endpoints/10.0.50.8:7000",
    "traffic": "/ui/traffic",
    "traffic-by-zone": "/ui/traffic?by=zone&window=1h&sort=p99",
    "subscribers": "/ui/subscribers",
    "mesh": "/ui/mesh",
    "mesh-revision": "/ui/mesh/revisions/2",
    "mesh-file": "/ui/mesh/revisions/2?file=services/web.yaml",
    "mesh-caller": "/ui/mesh/services/web",
    "overrides": "/ui/overrides",
    "events": "/ui/events",
    "registry": "/ui/registry",
    "login": "/ui/login",
    "hostile": f"/ui/services/{HOSTILE_SERVICE}",
    "hostile-endpoint": f"/ui/services/{HOSTILE_SERVICE}/endpoints/{quote('[2001:db8::5]:80')}",
    "nobody": "/ui/services?q=nobody-has-this-name",
}


def test_every_page_is_looked_at() -> None:
    """A page of the console that is not in the list would be looked at by nobody."""
    opened = [unquote(path.partition("?")[0]) for path in PAGES.values()]
    pages = {route.path for route in every_route() if route.method == "GET" and "console" in route.tags}
    # Neither the ways to pages nor the data of a chart is a page.
    pages -= {"/ui", "/ui/", "/ui/services/{service}/counts", "/ui/login/oidc", "/ui/login/oidc/callback"}
    # Only an administrator opens the audit, in a test of its own.
    pages -= {"/ui/audit"}
    assert len(pages) >= 6
    assert [page for page in pages if not any(compile_path(page)[0].match(path) for path in opened)] == []


SCREENS: dict[Literal["light", "dark"], tuple[int, int]] = {"light": (1360, 900), "dark": (390, 844)}


@pytest.fixture(scope="module")
async def tour(chromium: Browser, console: Registry) -> AsyncIterator[Visit]:
    """One tab for all pages, since each tab is one more process of Chromium."""
    context = await chromium.new_context(base_url=console.url)
    context.set_default_timeout(30_000)
    yield Visit(await context.new_page(), console.url)
    await context.close()


async def _show(page: Page, scheme: Literal["light", "dark"]) -> None:
    width, height = SCREENS[scheme]
    await page.emulate_media(color_scheme=scheme)
    await page.set_viewport_size({"width": width, "height": height})


def _is_of_htmx(response: Response) -> bool:
    return "hx-request" in response.request.headers


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
async def test_a_page_is_for_everybody(tour: Visit, path: str) -> None:
    """In the light on a desk, in the dark on a phone: axe finds nothing against WCAG 2.2 AA, and nothing sticks out.

    A page that shows itself anew gets it.
    """
    tour.complaints.clear()
    await _show(tour.page, "light")
    page = await tour.open(path)
    if await page.locator("#live[hx-get]").count():
        async with page.expect_response(_is_of_htmx) as refreshed:
            await page.evaluate("document.querySelector('#live').dispatchEvent(new Event('refresh'))")
        assert (await refreshed.value).status == 200
    await page.evaluate(AXE)
    for scheme in SCREENS:
        await _show(page, scheme)
        assert await page.evaluate(_RUN, _RULES) == [], scheme
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), scheme
        assert await page.evaluate(_OVERFLOWING) == [], scheme
    assert (tour.complaints, tour.strangers) == ([], [])


async def test_a_shift_has_the_curve_of_both_groups_and_its_orders(visit: Visit) -> None:
    """Lines within the drawing, figures beside it, and an order that the page then says was carried out."""
    page = await visit.open("/ui/services/search/shift")
    assert "Shift to zone=eu-central-1a: paused at 25 %" in await page.inner_text("h1")
    boxes = [await page.locator(f".shift-curve polyline.{name}").bounding_box() for name in ("group", "rest")]
    frame = await page.locator(".shift-curve svg").bounding_box()
    assert frame is not None
    for box in boxes:
        assert box is not None
        assert box["width"] > frame["width"] / 2
        assert frame["y"] <= box["y"] <= box["y"] + box["height"] <= frame["y"] + frame["height"]
    assert "16" in await page.inner_text("#shift-group-1")
    await page.click("text=Resume")
    await page.click("#shift-resume button.strong")
    await page.wait_for_selector("text=The shift was resumed")
    await page.wait_for_selector("h1:has-text('running at 25 %')")
    await page.click("text=Pause")
    await page.click("#shift-pause button.strong")
    await page.wait_for_selector("h1:has-text('paused at 25 %')")


async def test_a_row_says_what_differs_in_two_lines(visit: Visit) -> None:
    """Nothing that all endpoints have is repeated, and on a phone a row of a list is two lines of text high."""
    page = await visit.open(PAGES["service"])
    remarks = page.locator("#endpoints td.remarks")
    texts = [" ".join((await cell.inner_text()).split()) for cell in await remarks.all()]
    assert sorted(filter(None, texts)) == ["override", "revision 2.15.0-rc1 weight 1 canary"]
    assert "revision 2.14.0, weight 10 unless a row says otherwise" in await page.inner_text("#sum")
    await page.set_viewport_size({"width": 390, "height": 844})
    for name, rows in (("service", "#endpoints tr[id^=endpoint]"), ("services", "#service-rows tr")):
        await visit.open(PAGES[name])
        heights = [(await row.bounding_box() or {"height": 999})["height"] for row in await page.locator(rows).all()]
        assert heights
        assert max(heights) <= 70, name


@pytest.mark.parametrize(
    "opener", ["[data-dialog=drain]", "[data-dialog=override]", "[data-dialog=help]", "[data-json]"]
)
async def test_a_dialog_is_for_everybody(visit: Visit, opener: str) -> None:
    """Each field has its label, and colours hold there as well."""
    page = await visit.open(PAGES["endpoint"])
    await page.click(opener)
    await page.evaluate(AXE)
    assert await page.evaluate(_RUN, _RULES) == []


async def test_selected_rows_and_their_dialogs_are_for_everybody(visit: Visit) -> None:
    """The bar of actions and each of its dialogs, in the light on a desk and in the dark on a phone."""
    page = await visit.open(PAGES["service"])
    await page.evaluate(AXE)
    await page.check("input.pick >> nth=0")
    for scheme, (width, height) in SCREENS.items():
        await page.emulate_media(color_scheme=scheme)
        await page.set_viewport_size({"width": width, "height": height})
        # Of what the bar covers, axe says that it is too small to be pressed.
        await page.wait_for_function(_BAR_COVERS_NOTHING)
        assert await page.evaluate(_RUN, _RULES) == [], scheme
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), scheme
        for action in ("drain", "weight", "deregister"):
            await page.click(f"#picked [data-action={action}]")
            assert await page.evaluate(_RUN, _RULES) == [], (scheme, action)
            await page.keyboard.press("Escape")


async def test_a_roll_out_is_paused_and_resumed(visit: Visit) -> None:
    """By dialogs for everybody, with a reason; and a link to a line of a file leads to this line."""
    page = await visit.open("/ui/mesh")
    assert "an Envoy refuses it" in await page.inner_text("h1")
    await page.click("[data-dialog=rollback]")
    await page.evaluate(AXE)
    assert await page.evaluate(_RUN, _RULES) == []
    assert await page.get_attribute("#rollback form", "action") == "/ui/mesh/revisions/1/rollback"
    await page.keyboard.press("Escape")
    for opener, dialog, words in (("Pause", "pause", "paused"), ("Resume", "resume", "resumed")):
        await page.click(f"#rollout button:has-text('{opener}')")
        await page.fill(f"#{dialog}-rollout [name=reason]", "a look at web/task-2")
        await page.click(f"#{dialog}-rollout button.strong")
        assert f"The roll-out was {words}." in await page.inner_text(".done")
        # The words are there before the script is, which opens the next dialog.
        await page.wait_for_load_state("domcontentloaded")
    await page.click("#rollout a.row")
    await page.click("a:has-text('services/web.yaml:10')")
    assert "timeout: 2s" in await page.inner_text("li:target")


async def test_the_audit_is_a_page_for_everybody_who_may_read_it(visit: Visit, admin: Mapping[str, str]) -> None:
    """An administrator sees who did what, in the light on a desk and in the dark on a phone."""
    await visit.page.set_extra_http_headers(dict(admin))
    page = await visit.open("/ui/audit")
    assert "registered" in await page.inner_text("#audit-rows")
    await page.evaluate(AXE)
    for scheme, (width, height) in SCREENS.items():
        await page.emulate_media(color_scheme=scheme)
        await page.set_viewport_size({"width": width, "height": height})
        assert await page.evaluate(_RUN, _RULES) == [], scheme
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), scheme
    await page.fill("#principal", "nobody-of-this-name")
    await page.wait_for_selector("#empty")


async def test_an_error_is_a_page_for_everybody(visit: Visit) -> None:
    """With its status; the browser's own complaint of it is all there is."""
    page = await visit.open("/ui/nothing")
    await page.evaluate(AXE)
    assert await page.evaluate(_RUN, _RULES) == []
    assert await page.inner_text("h1") == "Not found"
    assert [line for line in visit.complaints if "404" not in line] == []
    visit.complaints.clear()


async def test_hostile_words_do_nothing(visit: Visit, console: Registry) -> None:
    """No dialog opens, nothing is asked of anybody, and the words stand there as they were sent."""
    opened: list[Any] = []
    visit.page.on("dialog", lambda dialog: opened.append(dialog.message))
    for name in ("hostile", "hostile-endpoint", "hostile-past", "traffic-by-zone", "events", "subscribers"):
        page = await visit.open(PAGES[name])
        assert "<script>alert('x')</script>" in await page.inner_text("body")
        assert await page.locator("img[src=x]").count() == 0
    assert opened == []
