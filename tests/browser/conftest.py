"""One registry with real data and one browser, for all tests of the console."""

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
from browser.mesh_stage import HOSTILE_FILES, rolling_out
from browser.stage import CALLS, Envoys, fill, shift
from browser.visit import HOSTILE, HOSTILE_SERVICE, Visit
from harness.access import bearer, first_token
from harness.browser import CHROMIUM, browser
from harness.calls import Call, Reporters
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry
from playwright.async_api import Browser, BrowserContext


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is here, and say why it is skipped where no Chromium is."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="no chromium on the PATH (Debian: apt install chromium)"))


def _provoke(target: Registry) -> None:
    """Register what nobody well-meaning would."""
    target.register(
        HOSTILE_SERVICE,
        "[2001:db8::5]:80",
        **dict.fromkeys(("instance_id", "detail", "revision", "zone", "region", "repository"), HOSTILE),
        metadata={HOSTILE: HOSTILE},
        ttl=3600,
    )
    override = {"weight": 2, "reason": HOSTILE, "expires_in": 7200}
    path = f"/v1/services/{HOSTILE_SERVICE}/endpoints/[2001:db8::5]:80/override"
    target.client.put(path, json=override, headers={"x-actor": "ann"})


@pytest.fixture(scope="session")
def console_database(server: Postgres) -> str:
    """The URL of the database of the console's registry."""
    return server.migrated_database()


@pytest.fixture(scope="session")
def admin(console: Registry, console_database: str) -> Mapping[str, str]:
    """The headers of an administrator."""
    headers = bearer(first_token(console_database))
    eventually(lambda: console.client.get("/v1/tokens", headers=headers).status_code == 200)
    return headers


@pytest.fixture(scope="session")
def console(server: Postgres, console_database: str, workplace: Path) -> Iterator[Registry]:
    """A registry with all of that."""
    # On a busy machine the tests take longer than silent endpoints are kept by default.
    settings = {"sweep_interval": "200ms", "removal_delay": "3600", "last_endpoint_hold": "1h"}
    with registry(console_database, workplace, **settings) as filled:
        fill(filled)
        shift(filled, server, console_database)
        _provoke(filled)
        eventually(lambda: "TIMEOUT" in filled.statuses("fleet").values(), within=20)
        calls = [*CALLS, Call(HOSTILE_SERVICE, "checkout", 100, 50, zone=HOSTILE)]
        with (
            Envoys(filled.url, {HOSTILE_SERVICE: HOSTILE}),
            Reporters(filled, calls),
            rolling_out(filled, HOSTILE_FILES),
        ):
            yield filled


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The one browser."""
    async with browser() as started:
        yield started


@pytest.fixture
async def visit(chromium: Browser, console: Registry) -> AsyncIterator[Visit]:
    """A fresh profile at the width of a desktop; what it complained of fails the test."""
    context: BrowserContext = await chromium.new_context(viewport={"width": 1360, "height": 900}, base_url=console.url)
    context.set_default_timeout(30_000)
    visitor = Visit(await context.new_page(), console.url)
    yield visitor
    await context.close()
    assert (visitor.complaints, visitor.strangers) == ([], [])
