"""A registrar beside a registry with access control, with the keys of its role from the agent of its container."""

from collections.abc import AsyncIterator, Iterator

import pytest
from harness.fake_registry import FakeRegistry
from harness.link import FakeKeys
from integration.registrar.credentials.logging_in import AUTHORIZATION


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    """A registry with access control."""
    async with FakeRegistry() as fake:
        fake.closed = True
        yield fake


@pytest.fixture
def agent() -> Iterator[FakeKeys]:
    """The agent of a container, with the keys of its role."""
    with FakeKeys() as fake:
        fake.keys = {"AccessKeyId": "ASIAFAKE", "SecretAccessKey": "s3cret-key", "Token": "s3cret-session"}
        fake.authorization = AUTHORIZATION
        yield fake
