"""Readers hear in time that PostgreSQL does not answer."""

import asyncio
import time

import pytest

from registry.errors import UnavailableError
from registry.store import database
from registry.store.database import Database


async def test_a_reader_hears_before_its_client_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL takes the connection and says nothing; the words name it, and the other limits are longer."""
    monkeypatch.setattr(database, "READING_TIMEOUT", 0.2)
    server = await asyncio.start_server(lambda *_: asyncio.sleep(60), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    silent = Database(f"postgresql://u@127.0.0.1:{port}/d", connections=1, timeout=30)
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match=r"PostgreSQL has not answered within 0\.2 s"):
        async with silent.reading():
            pass
    assert time.monotonic() - begun < 5
    await silent.close()
    server.close()
