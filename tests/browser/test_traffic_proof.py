"""How soon a callee that fails is red in the console, with a real Envoy, its registrar and two registry processes."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.app import Turned
from harness.envoy import Envoy, envoy
from harness.postgres import Postgres
from harness.process import free_port
from harness.registrar import registrar
from harness.registry import registry
from playwright.async_api import Browser, expect

pytestmark = [pytest.mark.proof, pytest.mark.envoy]

BAR = 25.0


class Callers(threading.Thread):
    """Sends twenty requests a second through an Envoy."""

    def __init__(self, found: Envoy) -> None:
        super().__init__(daemon=True)
        self._envoy = found
        self._over = threading.Event()

    def run(self) -> None:
        """Call until told to end."""
        while not self._over.wait(0.05):
            self._envoy.get()

    def stop(self) -> None:
        """Call no more."""
        self._over.set()
        self.join(10)


@pytest.fixture
def failing(server: Postgres, workplace: Path, service: str) -> Iterator[tuple[Turned, str]]:
    """An app that is called all the time, and the page of its pair at a process that gets no digests itself."""
    database = server.migrated_database()
    shop = Turned()
    with (
        contextlib.ExitStack() as at_the_end,
        registry(database, workplace) as one,
        registry(database, workplace) as two,
        envoy(workplace, [one.port], [service]) as found,
    ):
        at_the_end.callback(shop.stop)
        one.register(service, shop.endpoint, ttl=3600)
        reads = {"REGISTRAR_ENVOY_ADMIN": f"http://127.0.0.1:{found.admin}"}
        with registrar(workplace, one.url, "tests", f"127.0.0.1:{free_port()}", env=reads, admin_listen="off"):
            callers = Callers(found)
            callers.start()
            try:
                yield shop, f"{two.url}/ui/traffic?q={service}"
            finally:
                callers.stop()


async def test_a_failing_callee_is_red_within_its_bar(chromium: Browser, failing: tuple[Turned, str]) -> None:
    """Digests come each 10 s, by their default, to one process; a person looks at another one."""
    shop, url = failing
    page = await chromium.new_page()
    await page.goto(url)
    await expect(page.locator("#map .label.healthy")).to_have_count(1, timeout=90_000)
    shop.status = 503
    failed_at = time.monotonic()
    await expect(page.locator("#map .label.unhealthy")).to_contain_text("unhealthy", timeout=90_000)
    seconds = time.monotonic() - failed_at
    await page.close()
    assert seconds <= BAR, f"red after {seconds:.1f} s"
