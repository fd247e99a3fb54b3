"""Fixtures of the registrar's tests: real sockets on loopback."""

from collections.abc import AsyncIterator

import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from harness.probing import Authority


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    """A registry that grants everything."""
    async with FakeRegistry() as running:
        yield running


@pytest.fixture
async def app() -> AsyncIterator[FakeApp]:
    """An app that answers 200."""
    async with FakeApp() as running:
        yield running


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority that no system knows."""
    return Authority(tmp_path_factory.mktemp("authority"))
