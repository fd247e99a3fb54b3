"""Signing in and out in a real browser, what a person may do there, and a page of another site that tries to act."""

import http.server
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.access import bearer, first_token, new_token
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry
from playwright.async_api import Browser, Page, expect

READER = {"verbs": ["read"], "services": ["shop"]}
OPERATOR = {"verbs": ["read", "operate"], "services": ["shop"]}
SHOP = "/ui/services/shop"
ENDPOINT = "10.0.0.1:80"
DRAIN = f"{SHOP}/endpoints/{ENDPOINT}/drain"
_NO_GRANT = "no grant of token:reader allows the verb"
_FORM = """(url) => {
  document.body.innerHTML = `<form method=post action="${url}"><input name=reason value=evil></form>`;
  document.forms[0].submit();
}"""
_FETCH = """async ([url, method]) => {
  try { const answer = await fetch(url, {method, credentials: "include", mode: "no-cors"}); return answer.type; }
  catch (error) { return String(error); }
}"""


class Closed:
    """A registry with access on, one service, and the tokens of its people."""

    def __init__(self, served: Registry, admin: str) -> None:
        self.registry = served
        self.admin = admin
        self.reader, self.operator = (
            new_token(served, admin, name, grant)["token"]
            for name, grant in (("reader", READER), ("operator", OPERATOR))
        )

    def code(self) -> str:
        """Return the path of a link that signs in once."""
        path: str = self.registry.client.post("/v1/login/code", headers=bearer(self.admin)).json()["path"]
        return path

    def drained(self) -> bool:
        """Tell whether the endpoint is drained."""
        answer = self.registry.client.get(f"/v1/services/shop/endpoints/{ENDPOINT}", headers=bearer(self.admin))
        return bool(answer.json()["override"])


@pytest.fixture(scope="module")
def closed(server: Postgres, workplace: Path) -> Iterator[Closed]:
    """A registry with access on."""
    database = server.migrated_database()
    with registry(database, workplace, auth="on") as served:
        admin = first_token(database)
        eventually(lambda: served.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        body = {"instance_id": "i-1", "incarnation": 1, "ttl": 3600}
        for service in ("shop", "web"):
            url = f"/v1/services/{service}/endpoints/{ENDPOINT}"
            assert served.client.put(url, json=body, headers=bearer(admin)).status_code == 200
        yield Closed(served, admin)


@pytest.fixture
async def page(chromium: Browser, closed: Closed) -> AsyncIterator[Page]:
    """A page of a fresh profile."""
    context = await chromium.new_context(base_url=closed.registry.url, viewport={"width": 1360, "height": 900})
    context.set_default_timeout(30_000)
    yield await context.new_page()
    await context.close()


async def sign_in(page: Page, token: str) -> None:
    """Paste a token into the form that is shown."""
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Sign in").click()


async def test_a_person_signs_in_acts_and_signs_out(page: Page, closed: Closed) -> None:
    """From a link into the console to its page, to a drain in the person's name, and out again."""
    await page.goto(SHOP)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    await sign_in(page, "hct_wrong")
    await expect(page.get_by_role("alert").first).to_contain_text("was it cut or quoted?")
    await sign_in(page, closed.operator)
    await expect(page.get_by_role("heading", level=1)).to_contain_text("shop")
    await expect(page.locator("#who")).to_have_text("token:operator")
    await page.get_by_role("button", name=f"Drain {ENDPOINT}").click()
    await page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    await expect(page.get_by_text("Drained. Envoys receive the change at once.")).to_be_visible()
    await page.get_by_role("link", name=ENDPOINT).click()
    await expect(page.locator("#history")).to_contain_text("token:operator")
    await page.goto("/ui/events?service=shop")
    await expect(page.locator("#following")).to_have_text("live")
    await page.locator("#who").click()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    await page.goto(SHOP)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


async def test_buttons_that_would_be_refused_are_greyed(page: Page, closed: Closed) -> None:
    """Their title says which grant is missing, and they open nothing; a service that may not be read is no page."""
    await page.goto(SHOP)
    await sign_in(page, closed.reader)
    button = page.get_by_role("button", name="drain")
    await expect(button).to_be_disabled()
    await expect(button).to_have_attribute(
        "title", "no grant of token:reader allows the verb operate for the service shop"
    )
    await button.click(force=True)
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.goto("/ui/services")
    await expect(page.get_by_role("link", name="shop")).to_be_visible()
    await expect(page.get_by_role("link", name="web")).to_have_count(0)
    await page.goto("/ui/services/web")
    await expect(page.locator("main")).to_contain_text(
        "no grant of token:reader allows the verb read for the service web"
    )
    await expect(page.locator("main")).to_contain_text("You are signed in as token:reader")


async def test_a_link_signs_in_once(page: Page, closed: Closed) -> None:
    """Without a word typed; its code is not kept in the address, and a second time it says so."""
    path = closed.code()
    await page.goto(path)
    await expect(page).to_have_title("Overview · Headcount")
    await expect(page.locator("#who")).to_have_text("token:admin")
    assert "hcl_" not in page.url
    await page.context.clear_cookies()
    await page.goto(path)
    await expect(page.get_by_role("alert").first).to_contain_text("used already")


async def test_a_session_that_ends_leads_to_the_sign_in_and_back(page: Page, closed: Closed) -> None:
    """A page that is open says so with its next update, and shows itself again afterwards."""
    await page.goto(SHOP)
    await sign_in(page, closed.reader)
    await expect(page.get_by_role("heading", level=1)).to_contain_text("shop")
    await page.context.clear_cookies()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in", timeout=30_000)
    await sign_in(page, closed.reader)
    await expect(page.get_by_role("heading", level=1)).to_contain_text("shop")


class _Evil(http.server.BaseHTTPRequestHandler):
    """A site of somebody else."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>evil</title><body>win a prize</body>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_text: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def evil() -> Iterator[int]:
    """The port of a site on the registry's own address, which is the same site for SameSite, and another one."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Evil) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_page_of_another_site_cannot_act(page: Page, closed: Closed, evil: int, host: str) -> None:
    """Neither on another port of this host, where the cookie goes along, nor abroad."""
    await page.goto("/ui/login")
    await sign_in(page, closed.admin)
    await expect(page.locator("#who")).to_have_text("token:admin")
    before = closed.drained()
    for path, method in ((DRAIN, "POST"), ("/ui/logout", "POST"), ("/v1/services", "GET")):
        await page.goto(f"http://{host}:{evil}/")
        await page.evaluate(_FETCH, [closed.registry.url + path, method])
    for path in (DRAIN, "/ui/logout", "/ui/login"):
        await page.goto(f"http://{host}:{evil}/")
        async with page.expect_navigation() as navigation:
            await page.evaluate(_FORM, closed.registry.url + path)
        assert (await navigation.value).status == 403
    assert closed.drained() == before
    # A link into the console from elsewhere works.
    await page.goto(f"http://{host}:{evil}/")
    async with page.expect_navigation():
        await page.evaluate("(url) => { location.href = url; }", closed.registry.url + SHOP)
    await expect(page.locator("#who")).to_have_text("token:admin")
