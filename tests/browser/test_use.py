"""The console in use: search, keys, drains, live numbers, events as they happen."""

import asyncio
import re

from browser.visit import Visit
from harness.process import eventually
from harness.registry import Registry
from playwright.async_api import Page, Response, expect

_BOXES = "[...document.querySelectorAll('tr[id]')].map((row) => [row.id, row.getBoundingClientRect().top])"

_WORDS_OF_TIMES = re.compile(r"(?<=>)[^<>]*(?=</time>)")


async def same_document(page: Page) -> None:
    """Fail when the page was loaded anew since ``mark``."""
    assert await page.evaluate("window.sameDocument === true")


async def mark(page: Page) -> None:
    """Remember this very document, and wait until it was updated once."""
    await page.evaluate("window.sameDocument = true; window.updates = 0;")
    await page.evaluate("document.addEventListener('htmx:after:swap', () => { window.updates += 1; })")


async def updated(page: Page) -> None:
    """Have an update made now, as the next tick would, and wait for it."""
    await page.evaluate("window.updates = 0")
    await refresh(page)
    # Asked for by us, since the pages let nobody wait by eval in them.
    async with asyncio.timeout(30):
        while not await page.evaluate("window.updates"):
            await asyncio.sleep(0.05)


async def refresh(page: Page) -> None:
    """Ask for what is shown anew, without waiting for the next tick."""
    await page.evaluate("htmx.trigger('#live', 'refresh')")


async def _update(page: Page) -> Response:
    async with page.expect_response(lambda answer: "hx-request" in answer.request.headers) as update:
        await refresh(page)
    return await update.value


async def arrived(page: Page, title: str) -> None:
    """Wait for the page with this title, and for its scripts."""
    await expect(page).to_have_title(f"{title} · Headcount")
    await page.wait_for_load_state("load")


async def test_a_drain_from_the_page_reaches_envoys(visit: Visit, console: Registry, service: str) -> None:
    """Drain and undrain by their buttons: EDS says DRAINING, the page says so and why, and then HEALTHY again."""
    for number in (1, 2):
        console.register(service, f"10.9.0.{number}:80", ttl=3600)
    page = await visit.open(f"/ui/services/{service}")
    row = page.locator("[id='endpoint-10.9.0.1:80']")
    await row.get_by_role("button", name="Drain").click()
    await page.get_by_role("dialog").get_by_label("Reason").fill("disk errors")
    await page.get_by_role("dialog").get_by_label("Your name").fill("ann")
    await page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    await expect(page.get_by_text("Drained. Envoys receive the change at once.")).to_be_visible()
    assert console.statuses(service) == {"10.9.0.1:80": "DRAINING", "10.9.0.2:80": "HEALTHY"}
    await expect(row).to_contain_text("DRAINING")
    await expect(page).not_to_have_url(re.compile("done="))
    await row.get_by_role("link").click()
    await expect(page.locator("#verdict")).to_contain_text("an operator drained it: disk errors")
    await expect(page.locator("#history")).to_contain_text("ann from 127.0.0.1")
    await page.get_by_role("button", name="Undrain").click()
    await expect(page.get_by_role("dialog").get_by_label("Your name")).to_have_value("ann")
    await page.get_by_role("dialog").get_by_role("button", name="Undrain").click()
    await expect(page.locator("#verdict")).to_contain_text("Routable: Envoys send it traffic")
    assert console.statuses(service)["10.9.0.1:80"] == "HEALTHY"


async def test_several_rows_are_drained_with_one_reason(visit: Visit, console: Registry, service: str) -> None:
    """By keyboard and mouse; the selection outlives updates, and the answer has what was refused and why."""
    for number in (1, 2, 3):
        console.register(service, f"10.9.0.{number}:80", ttl=3600)
    page = await visit.open(f"/ui/services/{service}")
    bar = page.get_by_role("region", name="Selected endpoints")
    await expect(bar).to_be_hidden()
    await page.keyboard.press("j")
    await page.keyboard.press("x")
    await page.get_by_label("Select 10.9.0.3:80").check()
    await expect(bar).to_contain_text("2 selected")
    console.register(service, "10.9.0.2:80", ttl=3600, health="UNHEALTHY")
    await mark(page)
    await updated(page)
    await expect(page.locator("[id='endpoint-10.9.0.2:80']")).to_contain_text("UNHEALTHY")
    await expect(page.get_by_label("Select 10.9.0.1:80")).to_be_checked()
    await expect(bar).to_contain_text("2 selected")
    await bar.get_by_role("button", name="Drain", exact=True).click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("heading")).to_have_text("Drain 2 endpoints")
    await expect(dialog.get_by_label("Weight")).to_be_hidden()
    await dialog.get_by_label("Reason").fill("kernel update")
    await dialog.get_by_role("button", name="Drain").click()
    await arrived(page, "2 of 2 drained")
    assert list(console.statuses(service).values()).count("DRAINING") == 2
    await page.get_by_role("link", name=f"Back to {service}").click()
    await arrived(page, service)
    await page.get_by_label("Select 10.9.0.2:80").check()
    await bar.get_by_role("button", name="All shown").click()
    await expect(bar).to_contain_text("3 selected")
    await bar.get_by_role("button", name="Undrain").click()
    await dialog.get_by_label("Reason").fill("done")
    await dialog.get_by_role("button", name="Undrain").click()
    await arrived(page, "2 of 3 undrained")
    await expect(page.locator("#results")).to_contain_text("there is nothing to take back")


async def test_a_loss_is_acknowledged_by_its_button(visit: Visit, console: Registry, service: str) -> None:
    """The list of lost endpoints says since when and what it was; an expected number is set beside it."""
    for number in range(10):
        console.register(f"{service}-others", f"10.8.0.{number + 1}:80", ttl=3600)
    console.register(service, "10.9.0.1:80", ttl=3600)
    console.register(service, "10.9.0.2:80", ttl=1)
    eventually(lambda: console.client.get(f"/v1/services/{service}").json()["lost_count"] == 1, within=10)
    page = await visit.open(f"/ui/services/{service}")
    await expect(page.locator("#lost-rows")).to_contain_text("its registrar went silent")
    await page.get_by_role("button", name="Acknowledge the loss of 10.9.0.2:80").click()
    await page.get_by_role("dialog").get_by_label("Reason").fill("scaled in")
    await page.get_by_role("dialog").get_by_role("button", name="Acknowledge").click()
    await expect(page.get_by_text("The loss was acknowledged.")).to_be_visible()
    await expect(page.locator("#lost-endpoints")).to_have_count(0)
    await page.get_by_role("button", name="1 of 1 present").click()
    await page.get_by_role("dialog").get_by_label("How many").fill("4")
    await page.get_by_role("dialog").get_by_role("button", name="Set").click()
    await expect(page.get_by_role("button", name="1 of 4 present")).to_be_visible()


async def test_an_override_is_changed_by_its_form(visit: Visit, console: Registry, service: str) -> None:
    """The form begins with what is set; weight and canary reach Envoys, with an end."""
    console.register(service, "10.9.0.1:80", ttl=3600)
    page = await visit.open(f"/ui/services/{service}/endpoints/10.9.0.1:80")
    await page.get_by_role("button", name="Override").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Weight").fill("7")
    await dialog.get_by_role("combobox", name="Canary").select_option("yes")
    await dialog.get_by_role("combobox", name="Duration").select_option("14400")
    await dialog.get_by_role("button", name="Override").click()
    await expect(page.locator("#facts")).to_contain_text("weight 7 canary")
    (told,) = console.endpoints(service)
    assert (told["weight"], told["canary"]) == (7, True)
    assert told["override"]["expires_at"] - told["override"]["set_at"] == 14400
    await page.get_by_role("button", name="Override", exact=True).click()
    await expect(dialog.get_by_label("Weight")).to_have_value("7")
    await expect(dialog.get_by_role("combobox", name="Canary")).to_have_value("yes")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Remove override").click()
    await dialog.get_by_role("button", name="Remove").click()
    await expect(page.get_by_text("The override was removed")).to_be_visible()
    assert console.endpoints(service)[0]["override"] is None


async def test_numbers_change_and_nothing_jumps(visit: Visit, console: Registry, service: str) -> None:
    """Without a reload: rows stay where they are, and focus, selected text and scroll position stay as they were."""
    for number in range(1, 40):
        console.register(service, f"10.9.0.{number}:80", ttl=3600, detail="200", zone="a", weight=10)
    page = await visit.open(f"/ui/services/{service}")
    await mark(page)
    await page.evaluate("scrollTo({top: 600, behavior: 'instant'})")
    link = page.get_by_role("link", name="10.9.0.20:80")
    await link.focus()
    await page.evaluate("getSelection().selectAllChildren(document.getElementById('endpoint-10.9.0.21:80').cells[0])")
    before = await page.evaluate(_BOXES)
    scrolled = await page.evaluate("scrollY")
    console.register(service, "10.9.0.22:80", ttl=3600, detail="503", zone="a", weight=10, health="UNHEALTHY")
    await expect(page.locator("[id='endpoint-10.9.0.22:80']")).to_contain_text("UNHEALTHY")
    await expect(page.locator("#sum")).to_contain_text("38 of 39 endpoints routable")
    assert await page.evaluate(_BOXES) == before
    assert await page.evaluate("scrollY") == scrolled
    assert (await page.evaluate("getSelection().toString()")).strip() == "10.9.0.21:80"
    assert await page.evaluate("document.activeElement.textContent") == "10.9.0.20:80"
    await same_document(page)


async def test_times_go_on_without_new_pages(visit: Visit, console: Registry, service: str) -> None:
    """An update without a change has no body; a change that comes later is shown all the same.

    The header of every page tells of the whole registry, in which another service may change between two updates.
    """
    console.register(service, "10.9.0.1:80", ttl=3600)
    page = await visit.open(f"/ui/events?service={service}")
    seconds = page.locator("#event-rows time[data-words]")
    body = ""
    async with asyncio.timeout(30):
        while (update := await _update(page)).status == 200:
            body, before = _WORDS_OF_TIMES.sub("", await update.text()), body
            assert body != before
            shown = await seconds.inner_text()
            await expect(seconds).not_to_have_text(shown)
    assert update.status == 304
    assert body
    await expect(seconds).to_have_text(re.compile(r"^[1-9]\d* s ago$"))
    console.register(service, "10.9.0.1:80", ttl=3600, health="UNHEALTHY")
    await expect(page.locator("#event-rows tr")).to_have_count(2)


async def test_what_is_typed_survives_updates(visit: Visit, console: Registry, service: str) -> None:
    """In an open dialog, while the list behind it changes."""
    console.register(service, "10.9.0.1:80", ttl=3600)
    page = await visit.open(f"/ui/services/{service}")
    await mark(page)
    await page.get_by_role("button", name="Drain").click()
    await page.get_by_role("dialog").get_by_label("Reason").press_sequentially("half a sen")
    console.register(service, "10.9.0.1:80", ttl=3600, health="DEGRADED")
    await refresh(page)
    await expect(page.locator("[id='endpoint-10.9.0.1:80']")).to_contain_text("DEGRADED")
    await page.keyboard.type("tence")
    await expect(page.get_by_role("dialog").get_by_label("Reason")).to_have_value("half a sentence")
    await same_document(page)


async def test_a_search_is_done_as_one_types(visit: Visit) -> None:
    """`/` leads into it; the list follows, also across updates; the address can be passed on."""
    page = await visit.open("/ui/services")
    await mark(page)
    await page.keyboard.press("/")
    await page.keyboard.type("a")
    await page.keyboard.type("cco")
    rows = page.locator("#service-rows tr")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("accounts")
    await expect(page).to_have_url(re.compile(r"/ui/services\?.*q=acco"))
    await updated(page)
    await expect(rows).to_have_count(1)
    await expect(page.get_by_label("Search services")).to_have_value("acco")
    await same_document(page)
    await page.reload()
    await expect(rows).to_have_count(1)
    await page.get_by_label("with warnings").check()
    await expect(page.get_by_text("No service matches")).to_be_visible()


async def test_filters_and_documents_of_a_service(visit: Visit) -> None:
    """More filters follow as one chooses, and stay in the address; the API's own document is a button away."""
    page = await visit.open("/ui/services/checkout")
    await page.get_by_text("More filters").click()
    await page.get_by_label("Metadata", exact=True).fill("stage=blue")
    rows = page.locator("#endpoints tr[id^=endpoint]")
    await expect(rows).to_have_count(1)
    await page.get_by_label("show metadata").check()
    await expect(rows).to_contain_text("shard=3")
    await expect(page).to_have_url(re.compile("metadata=stage%3Dblue"))
    await page.reload()
    await expect(rows).to_have_count(1)
    await page.get_by_role("button", name="JSON").click()
    await expect(page.locator("#json-text")).to_contain_text('"instance_id": "ecs-task-9f1c04"')
    await page.get_by_role("button", name="Copy").click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()


async def test_keys_lead_everywhere(visit: Visit) -> None:
    """J and k walk rows, Enter opens one, u leads up, g and a letter to a page, ? tells; and they can be turned off."""
    page = await visit.open("/ui/services")
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    await page.keyboard.press("k")
    await page.keyboard.press("j")
    second = page.locator("#service-rows tr").nth(1).get_by_role("link")
    await expect(second).to_be_focused()
    name = await second.inner_text()
    await page.keyboard.press("Enter")
    await arrived(page, name)
    await page.keyboard.press("u")
    await arrived(page, "Services")
    await page.keyboard.press("g")
    await page.keyboard.press("r")
    await arrived(page, "Registry")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    await page.get_by_label("Disable single-key shortcuts").check()
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_a_theme_is_remembered_and_there_before_the_first_paint(visit: Visit) -> None:
    """The server writes it into each page, from a cookie that says nothing else; without one the system decides."""
    page = await visit.open("/ui/services/checkout")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = await page.evaluate(ground)
    await page.get_by_label("Theme").select_option("dark")
    dark = await page.evaluate(ground)
    assert dark != light
    answer = await page.request.get("/ui/events")
    assert '<html lang="en" data-theme="dark">' in await answer.text()
    await visit.open("/ui/events")
    assert await page.evaluate(ground) == dark
    await page.get_by_label("Theme").select_option("as the system")
    assert await page.evaluate(ground) == light
    assert await visit.page.context.cookies() == []


async def test_the_keyboard_skips_the_header(visit: Visit) -> None:
    """The first Tab offers to, and where the focus is can be seen."""
    page = await visit.open("/ui/services")
    await page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    await expect(skip).to_be_focused()
    await expect(skip).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await page.keyboard.press("Tab")
    width = await page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert width == "2px"


async def test_events_appear_as_they_happen(visit: Visit, console: Registry, service: str) -> None:
    """Those that the filters let through; while it is paused nothing moves, and then what was missed is there."""
    page = await visit.open(f"/ui/events?service={service}")
    await expect(page.locator("#following")).to_have_text("live")
    await mark(page)
    console.register(service, "10.9.0.1:80", ttl=3600)
    rows = page.locator("#event-rows tr")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("first registration as HEALTHY")
    await page.get_by_role("button", name="Pause").click()
    console.register(service, "10.9.0.1:80", ttl=3600, health="UNHEALTHY", detail="503")
    await expect(page.locator("#following")).to_have_text("paused")
    eventually(lambda: len(console.client.get(f"/v1/events?service={service}").json()["events"]) == 2)
    async with page.expect_response(re.compile("/ui/events")):
        await refresh(page)
    await asyncio.sleep(0.3)
    assert await rows.count() == 1
    await page.get_by_role("button", name="Pause").click()
    await expect(rows).to_have_count(2)
    await page.get_by_label("Event", exact=True).select_option("health")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("HEALTHY to UNHEALTHY: 503")
    await page.get_by_label("Actor").fill("nobody")
    await expect(page.get_by_text("No event matches")).to_be_visible()
    await same_document(page)


async def test_a_stuck_envoy_is_seen(visit: Visit, console: Registry) -> None:
    """With what it holds against ours and why, first in the list; and on the page of what it polls."""
    page = await visit.open("/ui/subscribers?q=batch-01")
    row = page.locator("#subscriber-rows tr")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text("stuck", timeout=30_000)
    await expect(row).to_contain_text("all the same")
    await visit.open("/ui/services/payments")
    await expect(page.locator("#envoys tbody tr")).to_contain_text("batch-01")
    await visit.open("/ui/services/checkout")
    await expect(page.locator("#envoys tbody tr")).to_contain_text("current")


async def test_the_chart_draws_what_happened(visit: Visit) -> None:
    """With an area and a name for each status that there was, and marks that are in words too."""
    page = await visit.open("/ui/services/checkout")
    legend = page.locator("#chart .u-legend")
    for status in ("HEALTHY", "UNHEALTHY", "DRAINING", "DEGRADED"):
        await expect(legend).to_contain_text(status)
    assert (await page.locator("#chart canvas").bounding_box())["height"] > 150  # type: ignore[index]  # it is there
    assert "TIMEOUT" not in await legend.inner_text()
    marks = page.locator("#chart-marks")
    await expect(marks).to_contain_text("10.0.1.5:8080 drained")
    await expect(marks).to_contain_text("new revision 2.15.0-rc1")


async def test_names_of_services_have_room_on_any_screen(visit: Visit) -> None:
    """Columns of counts give way to the name and the warnings, and never the other way round."""
    page = await visit.open("/ui/services")
    for width in (760, 1000, 1240, 1260, 1600):
        await page.set_viewport_size({"width": width, "height": 900})
        for column in (".c-name", ".c-warn"):
            box = await page.locator(f"#services {column}").bounding_box()
            assert box is not None
            assert box["width"] > 100, (width, column, box)


async def test_a_banner_says_what_the_guard_keeps(visit: Visit, console: Registry) -> None:
    """On every page, with the numbers and a way to the silent endpoints, none of which is shown as healthy."""
    for path in ("/ui/events", "/ui/registry", "/ui/login", "/ui/services/nobody-has-this-name", "/ui/services"):
        page = await visit.open(path)
        await expect(page.locator("#banner")).to_contain_text(
            re.compile(r"The guard keeps \d silent endpoints? of fleet in the answers, (the longest )?for \d+")
        )
    visit.complaints.clear()  # The page of a service that is not known is a 404.
    (before,) = re.findall(r"keeps \d", await page.locator("#banner").inner_text())
    console.register("fleet", "10.0.50.7:7000", ttl=3600)
    await expect(page.locator("#banner")).not_to_contain_text(before)
    # By a key, since a click waits until nothing moves, and updates write the banner anew meanwhile.
    await page.get_by_role("link", name=re.compile("Look at (it|them)")).press("Enter")
    await arrived(page, "fleet")
    rows = page.locator("#endpoints tr[id^=endpoint-]")
    await expect(rows.first).to_be_visible()
    for row in await rows.all():
        await expect(row.locator(".status")).to_have_text("SILENT")
    await rows.first.get_by_role("link").click()
    await expect(page.locator("#verdict")).to_contain_text("SILENT, last reported HEALTHY")
    await expect(page.locator("#verdict")).to_contain_text("Deregister the endpoint")
    assert await page.locator(".status.healthy").count() == 1, "only the event of its registration"


async def test_a_click_on_the_chart_leads_to_that_time(visit: Visit, console: Registry, service: str) -> None:
    """The page of a past time has what was listed then, and says that it is not now."""
    console.register(service, "10.9.0.1:80", ttl=3600)
    page = await visit.open(f"/ui/services/{service}")
    await page.locator("#chart .u-over").click(position={"x": 300, "y": 50})
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"{service} had no endpoint")
    await expect(page.locator("#past")).to_contain_text("ago, by the history")
    await visit.open(f"/ui/services/{service}/past")
    await expect(page.locator("#past-endpoints")).to_contain_text("first registration as HEALTHY")
    await page.get_by_role("link", name="5 min earlier").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"{service} had no endpoint")


async def test_expiry_is_paused_from_the_page(visit: Visit, console: Registry, service: str) -> None:
    """For one service, with a reason; the page of the service says so, and the pause is taken back by its button."""
    console.register(service, "10.9.0.1:80", ttl=3600)
    page = await visit.open("/ui/registry")
    await page.get_by_role("button", name="Pause expiry").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Service").fill(service)
    await dialog.get_by_label("Reason").fill("network work")
    await dialog.get_by_role("button", name="Pause expiry").click()
    row = page.locator(f"[id='pause-{service}']")
    await expect(row).to_contain_text("network work")
    # A click is lost when the row is drawn anew between its press and its release.
    async with asyncio.timeout(40):
        while not await dialog.is_visible():
            await row.get_by_role("button", name="Resume").click()
            await asyncio.sleep(0.2)
    await dialog.get_by_role("button", name="Resume").click()
    await expect(page.get_by_text("Expiry was resumed.")).to_be_visible()
    await expect(row).to_have_count(0)


async def test_a_lost_connection_is_said(visit: Visit) -> None:
    """What is shown stays, marked with its time, and is of now again when the registry answers."""
    page = await visit.open("/ui/services")
    await visit.page.context.set_offline(True)
    await refresh(page)
    await expect(page.locator("#lost")).to_contain_text("No response from the registry since")
    await expect(page.locator("#notice")).to_be_hidden()
    assert await page.locator("#service-rows tr").count() > 5
    await visit.page.context.set_offline(False)
    await refresh(page)
    await expect(page.locator("#lost")).to_be_hidden()
    assert [line for line in visit.complaints if "fetch" not in line and "ERR_INTERNET" not in line] == []
    visit.complaints.clear()


async def test_the_page_of_the_api_works_under_its_policy(visit: Visit) -> None:
    """/docs shows each route from our own files, runs nothing inline, and the browser complains of nothing."""
    answer = await visit.page.goto(f"{visit.url}/docs", wait_until="load")
    assert answer is not None
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    await visit.page.get_by_text("/v1/services/{service}/endpoints/{endpoint}/drain").first.click()
    await visit.page.get_by_role("button", name="Try it out").first.click()
    await expect(visit.page.get_by_role("button", name="Execute").first).to_be_visible()


async def test_the_first_page_is_a_key_away_and_follows(visit: Visit, console: Registry) -> None:
    """`g o` leads there from any page; the headline and each finding follow without a reload, and lead on."""
    page = await visit.open("/ui/events")
    await page.keyboard.press("g")
    await page.keyboard.press("o")
    await expect(page).to_have_title("Overview · Headcount")
    # Endpoints of another service are silent for some minutes, which is worse.
    await expect(page.locator("#judgement h1")).to_contain_text(re.compile("no routable endpoint|silent"))
    await expect(page.locator("#notice-words")).to_have_class("failure")
    await expect(page.locator("#notice-words")).to_contain_text("failure")
    finding = page.locator("#finding-services-routable")
    await expect(finding).to_contain_text("payments: no endpoint may have traffic")
    console.register("payments", "10.0.40.1:8443", zone="eu-central-1a", ttl=3600)
    await expect(finding).not_to_contain_text("payments", timeout=30_000)
    console.register("payments", "10.0.40.1:8443", zone="eu-central-1a", ttl=3600, health="UNHEALTHY")
    await expect(finding).to_contain_text("payments", timeout=30_000)
    await finding.get_by_role("link", name="payments").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("payments has no routable endpoint")


async def test_the_longest_sign_of_trouble_fits(visit: Visit) -> None:
    """The sign in the header holds its words, on a desk and on a phone, so that nothing covers the next button."""
    page = await visit.open("/ui/services")
    for width in (1200, 360):
        await page.set_viewport_size({"width": width, "height": 800})
        for words in ("12 failures, 23 warnings", "No verdict"):
            await page.evaluate(
                "(words) => { const sign = document.querySelector('#notice-words');"
                " sign.className = 'failure'; sign.querySelector('span').textContent = words; }",
                words,
            )
            assert await page.evaluate(
                "(() => { const sign = document.querySelector('#notice-words');"
                " return sign.scrollWidth <= sign.clientWidth })()"
            ), (width, words)
            assert await page.evaluate(
                "(() => { const [brand, sign] = ['.brand', '#notice'].map((each) => document.querySelector(each));"
                " return sign.offsetTop < brand.offsetTop + brand.offsetHeight })()"
            ), (width, words)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
