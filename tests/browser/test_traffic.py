"""The page of traffic in a real browser: the map, the table, and the neighbours of a service."""

import re
from pathlib import Path

from browser.test_use import refresh
from browser.visit import HOSTILE, Visit
from harness.calls import Call, report
from harness.registry import Registry
from playwright.async_api import Page, expect

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text()
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RUN = "async (rules) => (await axe.run(document, {runOnly: rules})).violations.map((one) => one.id)"


async def open_pairs(visit: Visit, prefix: str, **more: str) -> Page:
    """Open the page of the pairs whose names have a prefix; on a busy machine a minute may be over soon."""
    query = "&".join(f"{name}={value}" for name, value in {"q": prefix, "window": "10m", **more}.items())
    page = await visit.open(f"/ui/traffic?{query}")
    await expect(page.locator("#map .node").first).to_be_visible()
    return page


async def test_the_guilty_pair_is_seen_in_one_look(visit: Visit, console: Registry, service: str) -> None:
    """Its line is red and says so in words, its row is the first one; a healthy one and a silent one are neither."""
    bad, well, idle = f"{service}-bad", f"{service}-well", f"{service}-idle"
    report(
        console,
        [
            Call(service, bad, 100, 38, reasons=(5, 0, 30, 0, 2), healthy=0),
            Call(service, well, 1000),
            Call(service, idle, 0),
        ],
    )
    page = await open_pairs(visit, service)
    await expect(page.locator("#map .edge.unhealthy")).to_have_count(1)
    await expect(page.locator("#map .label.unhealthy")).to_have_text("unhealthy38.0 % failno endpoint")
    await expect(page.locator("#map .label.healthy")).to_have_text(re.compile(r"^\d+/s$"))
    await expect(page.locator("#map .label.quiet")).to_have_text("no traffic")
    rows = page.locator("#pair-rows tr")
    await expect(rows.nth(0)).to_contain_text(bad)
    for words in ("unhealthy", "62.0 %", "no healthy endpoint", "0 of 3"):
        await expect(rows.nth(0)).to_contain_text(words)
    await expect(rows.nth(1)).to_contain_text("100 %")
    await expect(rows.nth(2)).to_contain_text("no traffic")
    await expect(rows.nth(2)).not_to_contain_text("%")
    for width in (760, 1024):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    widths = [float(await line.get_attribute("stroke-width") or 0) for line in await page.locator("#map .line").all()]
    assert max(widths) > 1.5 * min(widths)


_OVERLAPS = """() => {
  const shown = [...document.querySelectorAll("#map .label")].filter((label) => label.getAttribute("visibility") === "visible");
  const boxes = shown.map((label) => label.querySelector("rect").getBoundingClientRect());
  const nodes = [...document.querySelectorAll("#map .node rect")].map((rect) => rect.getBoundingClientRect());
  const touch = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.5 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.5;
  return boxes.flatMap((box, i) => [...boxes.slice(i + 1), ...nodes].filter((other) => touch(box, other)).map(() => shown[i].textContent));
}"""  # noqa: E501


async def test_words_of_the_map_lie_on_no_others(visit: Visit, console: Registry, service: str) -> None:
    """Where all lines cross, the words of those that fail are all there, and none lies on another or on a service."""
    sick = {(2, 2), (1, 3), (4, 0), (0, 1)}
    report(
        console,
        [
            Call(f"{service}-{caller}", f"{service}-to-{callee}", 1000 + callee, 500 * ((caller, callee) in sick))
            for caller in range(5)
            for callee in range(5)
        ],
    )
    page = await open_pairs(visit, service)
    await expect(page.locator("#map .label.unhealthy[visibility=visible]")).to_have_count(len(sick))
    assert await page.evaluate(_OVERLAPS) == []
    assert await page.locator("#map .label.healthy[visibility=visible]").count() > 10


async def test_a_failing_pair_is_seen_on_every_page(visit: Visit, console: Registry, service: str) -> None:
    """The header says how many pairs fail, and leads to them; the overview and the badge have it as a warning."""
    report(console, [Call(service, f"{service}-sick", 90_000, 45_000), Call(service, f"{service}-well")])
    page = await visit.open("/ui/events")
    await expect(page.locator("#failing-pairs")).to_have_text(re.compile(r"^\d+ pairs fail$"))
    await expect(page.locator("#notice-words")).to_contain_text("warning")
    # The verdict beside it gives way, and so does the table of events below.
    for width in (1360, 1024, 760, 360):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        assert await page.evaluate(
            "(() => { const [brand, sign] = ['.brand', '#failing-pairs'].map((each) => document.querySelector(each)"
            ".getBoundingClientRect()); return sign.top < brand.bottom && sign.top >= 0 })()"
        ), width
    await page.locator("#failing-pairs").click()
    await expect(page).to_have_url(re.compile("/ui/overview#finding-requests-succeed$"))
    row = page.locator("#finding-requests-succeed")
    await expect(row).to_contain_text(f"{service} to {service}-sick: 50.0 % of")
    await row.get_by_role("link", name=service, exact=True).click()
    await expect(page.locator("#pair-rows tr")).to_have_count(1)


async def test_numbers_change_in_place_and_pairs_lay_the_map_out_anew(
    visit: Visit, console: Registry, service: str
) -> None:
    """A pair that begins to fail turns red where it is; only a new pair moves what is there."""
    report(console, [Call(service, f"{service}-shop")])
    page = await open_pairs(visit, service)
    await expect(page.locator("#map .edge.healthy")).to_have_count(1)
    await page.evaluate("window.first = document.querySelector('#map .node')")
    report(console, [Call(service, f"{service}-shop", 100, 100)])
    await expect(page.locator("#map .edge.unhealthy")).to_have_count(1)
    await expect(page.locator("#headline")).to_contain_text("unhealthy")
    assert await page.evaluate("window.first.isConnected")
    report(console, [Call(service, f"{service}-stock")])
    await refresh(page)
    await expect(page.locator("#map .node")).to_have_count(3)
    assert not await page.evaluate("window.first.isConnected")


async def test_a_map_says_what_it_leaves_out(visit: Visit, console: Registry, service: str) -> None:
    """It shows sixty services, the one that fails among them; the table has every pair."""
    calls = [Call(service, f"{service}-{number:02}", 1000 - number) for number in range(69)]
    report(console, [*calls, Call(service, f"{service}-sick", 1, 1)])
    page = await open_pairs(visit, service)
    await expect(page.locator("#map .node")).to_have_count(60)
    await expect(page.locator("#map .label.unhealthy")).to_have_text("unhealthy100 % failerrors")
    await expect(page.locator("#left-out")).to_contain_text("The map shows 60 services with 59 pairs: those that fail,")
    await expect(page.locator("#left-out")).to_contain_text("It leaves out 11 pairs and 11 services")
    await expect(page.locator("#pair-rows tr")).to_have_count(70)


async def test_a_fault_of_one_zone_is_one_line(visit: Visit, console: Registry, service: str) -> None:
    """Callers of each zone stand apart, whatever a zone is called; a switch leads there and back."""
    shop = f"{service}-shop"
    report(console, [Call(service, shop), Call(service, shop, 100, 60, zone="b"), Call(service, shop, zone=HOSTILE)])
    page = await open_pairs(visit, service)
    await expect(page.locator("#map .edge")).to_have_count(1)
    await page.get_by_label("Callers", exact=True).select_option("zone")
    await expect(page.locator("#map .edge")).to_have_count(3)
    await expect(page.locator("#map .edge.unhealthy title")).to_have_text(re.compile(f"{service} in eu/b to {shop}"))
    await expect(page.locator("#pair-rows tr").first).to_contain_text("eu/b")
    assert "<script>alert('x')</script>" in await page.inner_text("#pair-rows")
    assert await page.locator("img[src=x]").count() == 0
    await page.get_by_label("Callers", exact=True).select_option("")
    await expect(page.locator("#map .edge")).to_have_count(1)


async def test_columns_sort_the_table(visit: Visit, console: Registry, service: str) -> None:
    """By a link in the head of the column, which says which one it is."""
    report(console, [Call(service, f"{service}-z", 10, bucket=40), Call(service, f"{service}-b", 500, bucket=20)])
    page = await open_pairs(visit, service)
    for column, first in (("Callee", "-b"), ("Requests/s", "-b"), ("p99", "-z")):
        await page.get_by_role("link", name=column, exact=True).click()
        await expect(page.locator("#pair-rows tr").first).to_contain_text(f"{service}{first}")
        await expect(page.get_by_role("columnheader", name=column)).to_have_attribute(
            "aria-sort", "descending" if first == "-z" or column == "Requests/s" else "ascending"
        )


async def test_a_service_has_its_callers_and_callees_beside_it(visit: Visit, console: Registry, service: str) -> None:
    """Callers, the service, callees, from left to right and on a phone from top to bottom; and it is for everybody."""
    console.register(service, "10.9.0.1:80", ttl=3600)
    report(console, [Call(f"{service}-web", service, 100, 2), Call(service, f"{service}-stock", 100, 9)])
    page = await visit.open(f"/ui/services/{service}")
    caller, callee = page.locator("#traffic li.degraded"), page.locator("#traffic li.unhealthy")
    await expect(caller).to_contain_text("98.0 %")
    await expect(callee).to_contain_text(f"{service}-stock")
    boxes = [await box.bounding_box() for box in (caller, page.locator("#traffic .self"), callee)]
    lefts = [box["x"] for box in boxes if box]
    assert lefts == sorted(lefts)
    await page.set_viewport_size({"width": 390, "height": 844})
    boxes = [await box.bounding_box() for box in (caller, page.locator("#traffic .self"), callee)]
    tops = [box["y"] for box in boxes if box]
    assert tops == sorted(tops)
    assert len(tops) == len(lefts) == 3
    await page.evaluate(AXE)
    assert await page.evaluate(_RUN, _RULES) == []
    await callee.get_by_role("link").click()
    await expect(page).to_have_url(re.compile(f"/ui/services/{service}-stock$"))
    visit.complaints.clear()  # nobody has registered it, so that its page is 404


async def test_a_service_of_the_map_is_a_link(visit: Visit, console: Registry, service: str) -> None:
    """By keyboard, too."""
    console.register(service, "10.9.0.1:80", ttl=3600)
    report(console, [Call(service, f"{service}-shop")])
    page = await open_pairs(visit, service)
    await page.locator("#map").focus()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"/ui/services/{service}$"))
