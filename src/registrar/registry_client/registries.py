"""The registries' URLs, the addresses behind their names, and which of them is next."""

import asyncio
import ipaddress
import random
import re
from collections.abc import Awaitable, Callable
from typing import Self
from urllib.parse import SplitResult, quote, urlsplit

from msgspec import Struct

from registrar.event_log import EventLogger
from registrar.registry_client.dns import resolve
from registrar.registry_client.http_client import Origin

REFRESH = 30.0
# A resolver that hangs must not cost an attempt more than this; its answer is used when it comes.
_PATIENCE = 1.0
# A name or an address; underscores are in names that container platforms give.
_HOST = re.compile(r"[0-9a-z._-]+|[0-9a-f:.]+")
# Those that may stand in a path as they are (RFC 3986, 3.3), and the % of others that are quoted already.
_PATH_CHARACTERS = "/:@!$&'()*+,;=%~-._"

log = EventLogger(__name__)


class RegistryUrls:
    """Base URLs of the registries, without a final slash."""

    __slots__ = ("urls",)

    def __init__(self, *urls: str) -> None:
        self.urls = urls

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read comma-separated URLs.

        Raises:
            ValueError: one of them is no http or https URL, or carries a password or a query.
        """
        return cls(*(_base_url(part.strip()) for part in str(value).split(",") if part.strip()))

    @property
    def exposed(self) -> list[str]:
        """Those to which a token would travel in plain text, over more than this machine."""
        return [url for url in self.urls if url.startswith("http:") and not _loopback(urlsplit(url).hostname or "")]

    def __str__(self) -> str:
        return ",".join(self.urls)


class RegistryAddress(Struct, frozen=True):
    """One address of one registry.

    Attributes:
        url: the base URL as it was configured.
        address: an IP literal; empty while the URL's name has none.
    """

    url: str
    address: str

    @property
    def resolved(self) -> bool:
        """Whether there is an address to connect to."""
        return bool(self.address)

    @property
    def name(self) -> str:
        """The host of the URL: the name that a certificate has to be for."""
        return urlsplit(self.url).hostname or ""

    @property
    def host(self) -> str:
        """The value of the Host header."""
        return urlsplit(self.url).netloc

    @property
    def origin(self) -> Origin:
        """The server to connect to."""
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            return Origin(self.address, parts.port or 443, self.name)
        return Origin(self.address, parts.port or 80)

    def target(self, path: str) -> str:
        """Return the request target of a path below the base URL."""
        return quote(urlsplit(self.url).path, safe=_PATH_CHARACTERS) + path


class Registries:
    """Where the next request goes.

    Every address of every name is a target. Their order within a name is random and stays the same in one
    process: a fleet spreads over the registries, and a lookup in another order changes nothing.

    DNS may name addresses where no registry is. Of each URL the address that answered last therefore stays a target
    until another address of that URL has answered. After a failure the next attempt goes where a registry answered
    last, so that dead addresses, however many, cost one attempt at a time and never a lease.
    """

    def __init__(self, urls: RegistryUrls, look_up: Callable[[str], Awaitable[list[str]]] = resolve) -> None:
        self._urls = urls.urls
        self._look_up = look_up
        # What the last successful lookup of each URL's name said.
        self._known = {url: literal for url in urls.urls if (literal := _literal(urlsplit(url)))}
        self._named = [url for url in urls.urls if url not in self._known]
        # Of each URL the address that answered last, whether DNS still names it or not.
        self._answered: dict[str, str] = {}
        # Targets that answered and have not failed since, the last one at the end.
        self._proven: list[RegistryAddress] = []
        # The target that answered last, even if it has failed since; always in the list.
        self._last: RegistryAddress | None = None
        # Whether the newest attempt failed.
        self._failing = False
        self._seed = random.SystemRandom().random()
        self._list = self._listed()
        self._current = self._list[0]
        # Index in the list of the target that came up last by its turn, and not as the way back to a proven one.
        self._turn = 0
        self._lost: set[str] = set()
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def current(self) -> RegistryAddress:
        """What to use now."""
        return self._current

    @property
    def all(self) -> list[RegistryAddress]:
        """Every address that is known, in the order in which they are tried."""
        return list(self._list)

    def advance(self) -> None:
        """Turn to the next one, so that each registry gets its share."""
        self._turn = (self._turn + 1) % len(self._list)
        self._current = self._list[self._turn]

    def answered(self, target: RegistryAddress) -> None:
        """Take note that a registry answered there."""
        self._proven = [*(one for one in self._proven if one != target), target]
        self._last, self._failing = target, False
        if target.address != self._answered.get(target.url):
            self._answered[target.url] = target.address
            self._relist()

    def failed(self, target: RegistryAddress) -> None:
        """Take note that no registry answered there, and turn to where one did, or else to the next one."""
        self._proven = [one for one in self._proven if one != target]
        self._failing = True
        if target != self._current:
            # Another request found that out before, and the turn was made.
            return
        back = self._proven[-1] if self._proven else self._last
        if back is None or back == target:
            self.advance()
        else:
            self._current = back

    async def refresh(self) -> None:
        """Look all names up again, but wait for that a moment only."""
        if self._named:
            await asyncio.wait({self.refresh_soon()}, timeout=_PATIENCE)

    def refresh_soon(self) -> asyncio.Task[None]:
        """Look all names up again in the background; one lookup at a time."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh(), name="resolve")
        return self._refreshing

    async def _refresh(self) -> None:
        await asyncio.gather(*(self._refresh_one(url) for url in self._named))

    async def _refresh_one(self, url: str) -> None:
        host = urlsplit(url).hostname or ""
        try:
            found = _usable(await self._look_up(host))
        except OSError as error:
            # The last good addresses stay: a resolver that is away is no reason to forget a registry.
            if host not in self._lost:
                log.warning("name_not_resolved", host=host, reason=str(error), keeping=self._known.get(url, []))
            self._lost.add(host)
            return
        self._lost.discard(host)
        before = self._known.get(url, [])
        self._known[url] = sorted(found, key=lambda address: hash((self._seed, address)))
        self._relist()
        kept = self._answered.get(url)
        if self._known[url] != before and kept is not None and kept not in found:
            log.warning("address_kept", host=host, kept=kept, named=found, reason="none that DNS names has answered")
            if self._current == RegistryAddress(url, kept) and not self._failing:
                # The registry may have moved: what DNS names now is tried once before its old address.
                self.advance()

    def _relist(self) -> None:
        """Make the list anew and keep the places in it, as far as they are still there."""
        came_up = self._list[self._turn]
        self._list = self._listed()
        self._turn = self._list.index(came_up) if came_up in self._list else self._turn % len(self._list)
        self._proven = [one for one in self._proven if one in self._list]
        if self._current not in self._list:
            self._current = self._list[self._turn]

    def _listed(self) -> list[RegistryAddress]:
        return [RegistryAddress(url, address) for url in self._urls for address in self._addresses(url) or [""]]

    def _addresses(self, url: str) -> list[str]:
        known, answered = self._known.get(url, []), self._answered.get(url)
        return known if answered is None or answered in known else [*known, answered]


def _usable(found: list[str]) -> list[str]:
    """Return the addresses at which a registry can be.

    Resolvers that block a name say 0.0.0.0 or ::, which would connect to this machine itself.

    Raises:
        OSError: none is left.
    """
    addresses = [ipaddress.ip_address(address.partition("%")[0]) for address in found]
    usable = [text for text, one in zip(found, addresses, strict=True) if not (one.is_unspecified or one.is_multicast)]
    if not usable:
        raise OSError(f"the resolver named no usable address, only: {', '.join(found) or 'none at all'}")
    return usable


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _literal(parts: SplitResult) -> list[str]:
    try:
        return [str(ipaddress.ip_address(parts.hostname or ""))]
    except ValueError:
        return []


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    # Containers that are linked get variables like tcp://172.17.0.3:8080.
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text!r} is no http or https URL; write it like http://10.0.0.2:8080")
    if parts.username or parts.password:
        raise ValueError("a registry URL must not carry a user or a password: URLs are logged")
    if not (text.isascii() and text.isprintable() and _HOST.fullmatch(parts.hostname)):
        raise ValueError(f"{text!r} has characters that no URL has; write an international name as xn--…")
    if parts.query or parts.fragment:
        raise ValueError(f"{text!r} must not have a query or a fragment")
    _ = parts.port  # raises ValueError when it is no port
    return text.rstrip("/")
