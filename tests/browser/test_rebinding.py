"""A page whose owner points its name to the registry's address (DNS rebinding), in a real browser."""

import http.server
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.browser import browser
from harness.postgres import Postgres
from harness.process import free_port
from harness.registry import Registry, registry
from playwright.async_api import Browser, Page, Response

EVIL = "evil.example"
LISTED = "registry.example.com"
ENDPOINT = "10.0.0.1:80"
_FETCH = """async ([method, path, body]) => {
  const answer = await fetch(path, {method, body});
  return [answer.status, await answer.text()];
}"""
_FORM = """(path) => {
  document.body.innerHTML = `<form method=post action="${path}"><input name=reason value=x></form>`;
  document.forms[0].submit();
}"""


class _Page(http.server.BaseHTTPRequestHandler):
    """What the evil name serves before its owner points it elsewhere."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>evil</title><body>win a prize</body>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        # Each request connects anew, as it does for a browser whose answer from the DNS has run out.
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_told: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> int:
    """The one port of the evil server and of the registry: a page may ask its own origin alone, port and all."""
    return free_port()


@pytest.fixture(scope="module")
def evil(port: int) -> Iterator[None]:
    """The evil server, on an address of loopback that is not the registry's."""
    with http.server.ThreadingHTTPServer(("127.0.0.2", port), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def target(server: Postgres, workplace: Path, port: int) -> Iterator[Registry]:
    """The registry that the page is after."""
    with registry(server.migrated_database(), workplace, listen=f"127.0.0.1:{port}", hosts=LISTED) as found:
        yield found


@pytest.fixture(scope="module")
async def rebound() -> AsyncIterator[Browser]:
    """A browser for which both names lead to the registry, and the evil one first to its own server."""
    rules = f"MAP before.{EVIL} 127.0.0.2, MAP {EVIL} 127.0.0.1, MAP {LISTED} 127.0.0.1"
    async with browser(f"--host-resolver-rules={rules}") as found:
        yield found


async def opened(browser: Browser, url: str) -> tuple[Page, Response]:
    """Open a page."""
    page = await (await browser.new_context()).new_page()
    answer = await page.goto(url)
    assert answer is not None
    return page, answer


def attempts(service: str) -> list[tuple[str, str, str | None]]:
    """Return what such a page would try: to read, to register and to drain."""
    path = f"/v1/services/{service}"
    return [
        ("GET", path, None),
        ("GET", "/v1/services", None),
        ("PUT", f"{path}/endpoints/10.6.6.6:80", '{"instance_id":"evil","incarnation":1}'),
        ("POST", f"{path}/endpoints/{ENDPOINT}/drain", ""),
        ("POST", "/v3/discovery:endpoints", f'{{"resource_names":["{service}"]}}'),
    ]


async def test_a_rebound_page_reads_and_writes_nothing(
    rebound: Browser, target: Registry, port: int, service: str
) -> None:
    """For the browser it is of the registry's own origin, and still each request is answered with 421."""
    target.register(service, ENDPOINT)
    page, _ = await opened(rebound, f"http://{EVIL}:{port}/livez")
    for method, path, body in attempts(service):
        status, text = await page.evaluate(_FETCH, [method, path, body])
        assert status == 421, path
        assert service not in text
    async with page.expect_navigation() as navigation:
        await page.evaluate(_FORM, f"/ui/services/{service}/endpoints/{ENDPOINT}/drain")
    answer = await (await navigation.value).body()
    assert (await navigation.value).status == 421
    assert b"REGISTRY_HOSTS=evil.example" in answer
    assert target.statuses(service) == {ENDPOINT: "HEALTHY"}
    await page.context.close()


async def test_a_page_elsewhere_cannot_write_by_a_form(
    evil: None, rebound: Browser, target: Registry, port: int, service: str
) -> None:
    """Before it is rebound it can send a form to a name that is ours, and gets 403."""
    target.register(service, ENDPOINT)
    page, _ = await opened(rebound, f"http://before.{EVIL}:{port}/")
    async with page.expect_navigation() as navigation:
        await page.evaluate(_FORM, f"http://{LISTED}:{port}/ui/services/{service}/endpoints/{ENDPOINT}/drain")
    assert (await navigation.value).status == 403
    assert target.statuses(service) == {ENDPOINT: "HEALTHY"}
    await page.context.close()


@pytest.mark.parametrize("name", [LISTED, "127.0.0.1", "localhost"])
async def test_our_own_pages_work_under_our_names(
    rebound: Browser, target: Registry, port: int, service: str, name: str
) -> None:
    """Under a listed name, an address and localhost: the console is read, and a drain by its form counts."""
    target.register(service, ENDPOINT)
    page, answer = await opened(rebound, f"http://{name}:{port}/ui/services/{service}")
    assert answer.status == 200
    await page.locator(f"[id='endpoint-{ENDPOINT}']").get_by_role("button", name="Drain").click()
    await page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    await page.get_by_text("Drained. Envoys receive the change at once.").wait_for()
    assert target.statuses(service) == {ENDPOINT: "DRAINING"}
    await page.context.close()
