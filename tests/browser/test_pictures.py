"""The pictures of docs/images, taken of a registry with a day's work; `make screenshots` runs this and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from browser.mesh_stage import CHANGED_FILES, rolling_out
from browser.stage import CALLS, Envoys, fill, shift
from harness.calls import Reporters
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry
from playwright.async_api import Browser

IMAGES = Path(__file__).parents[2] / "docs" / "images"
DESKTOP, PHONE = (1280, 860), (390, 844)
CHECKOUT = "/ui/services/checkout"

PICTURES: dict[str, tuple[str, tuple[int, int], Literal["light", "dark"]]] = {
    "overview": ("/ui/overview", (1280, 1000), "light"),
    "services": ("/ui/services", DESKTOP, "light"),
    "service": (CHECKOUT, (1280, 1180), "light"),
    "service-dark": (CHECKOUT, (1280, 1180), "dark"),
    "service-phone": (CHECKOUT, PHONE, "dark"),
    "endpoint": (f"{CHECKOUT}/endpoints/10.0.1.3:8080", DESKTOP, "light"),
    "traffic": ("/ui/traffic", (1280, 1000), "light"),
    "shift": ("/ui/services/search/shift", DESKTOP, "light"),
    "subscribers": ("/ui/subscribers", DESKTOP, "light"),
    "mesh": ("/ui/mesh", (1280, 1120), "light"),
    "events": ("/ui/events", DESKTOP, "dark"),
    "registry": ("/ui/registry", DESKTOP, "light"),
}

# What was just done was done over the last hour.
_EVENTS_APART = """
UPDATE events SET at = now() - interval '55 minutes' * (1 - told.part)
FROM (SELECT id, percent_rank() OVER (ORDER BY id) AS part FROM events) AS told
WHERE events.id = told.id
"""
_ENDPOINTS_WITH_THEM = """
UPDATE endpoints SET registered_at = told.begun, changed_at = told.ended, change = change + 1
FROM (SELECT service, address, port, min(at) AS begun, max(at) AS ended FROM events GROUP BY 1, 2, 3) AS told
WHERE (endpoints.service, endpoints.address, endpoints.port) = (told.service, told.address, told.port)
"""
_ALL_CHANGED = "UPDATE services SET change = change + 1"


@pytest.fixture(scope="module")
def stage(server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry, two Envoys, a history, and a shift that is paused."""
    database = server.migrated_database()
    with registry(database, workplace, sweep_interval="200ms", removal_delay="3600") as found:
        fill(found)
        shift(found, server, database, served=True)
        eventually(lambda: "TIMEOUT" in found.client.get("/v1/services/fleet").json()["statuses"], within=20)
        for statement in (_EVENTS_APART, _ENDPOINTS_WITH_THEM, _ALL_CHANGED):
            server.execute(statement, url=database)
        with Envoys(found.url), Reporters(found, CALLS), rolling_out(found, CHANGED_FILES):
            eventually(lambda: "stuck" in found.client.get("/v1/subscribers").json()["states"], within=20)
            yield found


@pytest.mark.pictures
@pytest.mark.parametrize("name", PICTURES)
async def test_a_picture_is_taken(chromium: Browser, stage: Registry, name: str) -> None:
    """Of the page as it is, once its chart is drawn."""
    path, (width, height), scheme = PICTURES[name]
    page = await chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    await page.goto(stage.url + path, wait_until="networkidle" if "events" not in name else "load")
    await page.wait_for_timeout(500)
    IMAGES.mkdir(exist_ok=True)
    await page.screenshot(path=IMAGES / f"{name}.png")
    await page.close()
    assert (IMAGES / f"{name}.png").stat().st_size > 10_000
