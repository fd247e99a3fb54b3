"""Publishing all services once, for `registry publish`: reads the database, stores the objects, and ends."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from registry.background.change_feed import ChangeFeed
from registry.background.publish_target import target_of
from registry.background.publisher import Publisher
from registry.cache.snapshot_cache import SnapshotCache
from registry.database_url import DatabaseUrl
from registry.errors import UnavailableError
from registry.settings import Settings
from registry.store.database import Database

_READ_TIMEOUT = 30.0
"""Seconds in which the database has to be read."""


def publish_once(settings: Settings, url: DatabaseUrl, place: str) -> Mapping[str, str]:
    """Publish all services; return those that could not be published, with the reasons.

    Raises:
        BadSettingsError: the place is none.
        UnavailableError: the database cannot be read.
    """
    return asyncio.run(_publish(settings, url, place))


async def _publish(settings: Settings, url: DatabaseUrl, place: str) -> Mapping[str, str]:
    target = target_of(place)
    database = Database(url, connections=settings.database_connections, timeout=settings.database_timeout)
    cache = SnapshotCache()
    read = asyncio.Event()
    feed = ChangeFeed(database, cache, settings, settle=read.set)
    following = asyncio.create_task(feed.run())
    publisher = Publisher(target, cache, lambda: True)
    try:
        async with asyncio.timeout(_READ_TIMEOUT):
            await read.wait()
        await publisher.publish()
    except TimeoutError:
        raise UnavailableError("the database could not be read", cause=feed.loss) from None
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await database.close()
    return publisher.failing
