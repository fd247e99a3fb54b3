"""The registries' URLs, the addresses behind their names, and the order in which they are asked."""

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
from wire.address import is_exposed

RESOLVE_INTERVAL = 30.0
"""Seconds between two lookups of the registries' names while a connection is in use."""
_LOOKUP_TIMEOUT = 1.0
"""Seconds that an attempt waits for the resolver; an answer that comes later is used then."""
# A name or an address; underscores are in names that container platforms give.
_HOST = re.compile(r"[0-9a-z._-]+|[0-9a-f:.]+")
# Characters that may stand in a path as they are (RFC 3986, 3.3), and the % of others that are quoted already.
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
            ValueError: a URL is not http or https, or has a password or a query.
        """
        return cls(*(_base_url(part.strip()) for part in str(value).split(",") if part.strip()))

    @property
    def encrypted(self) -> list[str]:
        """The URLs of registries with TLS."""
        return [url for url in self.urls if url.startswith("https:")]

    @property
    def exposed(self) -> list[str]:
        """The URLs to which a token would travel unencrypted, and not only within this machine."""
        return [url for url in self.urls if is_exposed(url)]

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
    """The addresses of all registries, and which of them the next request goes to.

    The order of the addresses of a name is random and stays the same in one process: a fleet spreads over the
    registries, and a lookup that returns another order changes nothing.

    DNS may name addresses where no registry runs. Therefore the last address of each URL that answered stays in the
    list until another address of that URL has answered. After a failure the next attempt goes to the registry that
    answered last, so that any number of dead addresses costs every second attempt at most, and no lease.
    """

    def __init__(self, urls: RegistryUrls, look_up: Callable[[str], Awaitable[list[str]]] = resolve) -> None:
        self._urls = urls.urls
        self._look_up = look_up
        # Addresses by URL, from the last successful lookup of its name; stale while the resolver fails.
        self._resolved = {url: literal for url in urls.urls if (literal := _literal(urlsplit(url)))}
        self._urls_to_resolve = [url for url in urls.urls if url not in self._resolved]
        # The address of each URL that answered last, whether DNS still names it or not; written by ``answered``.
        self._last_answering: dict[str, str] = {}
        # Registries that answered and have not failed since, the newest at the end.
        self._answering: list[RegistryAddress] = []
        # The registry that answered last, even if it has failed since; always in the list.
        self._last: RegistryAddress | None = None
        # Whether the newest attempt failed.
        self._failing = False
        self._seed = random.SystemRandom().random()
        # All addresses, in the order of their turns; rebuilt when one of the two dictionaries above changes.
        self._list = self._listed()
        self._current = self._list[0]
        # Index in the list of the last one that had its turn; a way back to one that answers is no turn.
        self._turn = 0
        # Hosts whose failing lookup is logged already.
        self._unresolved_hosts: set[str] = set()
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def current(self) -> RegistryAddress:
        """The registry that the next request goes to."""
        return self._current

    @property
    def all(self) -> list[RegistryAddress]:
        """Every address, in the order of their turns."""
        return list(self._list)

    def advance(self) -> None:
        """Make the next one in the list the current one, so that each registry gets its share."""
        self._turn = (self._turn + 1) % len(self._list)
        self._current = self._list[self._turn]

    def answered(self, registry: RegistryAddress) -> None:
        """Record that a registry answered."""
        self._answering = [*(each for each in self._answering if each != registry), registry]
        self._last, self._failing = registry, False
        if registry.address != self._last_answering.get(registry.url):
            self._last_answering[registry.url] = registry.address
            self._rebuild_list()

    def failed(self, registry: RegistryAddress) -> None:
        """Record that an address failed; one that answered is the current one then, or else the next in the list."""
        self._answering = [each for each in self._answering if each != registry]
        self._failing = True
        if registry != self._current:
            # A request at the same time failed first, and the current one was changed then.
            return
        back = self._answering[-1] if self._answering else self._last
        if back is None or back == registry:
            self.advance()
        else:
            self._current = back

    async def refresh(self) -> None:
        """Look all names up again, and wait for that up to ``_LOOKUP_TIMEOUT``."""
        if self._urls_to_resolve:
            await asyncio.wait({self.refresh_soon()}, timeout=_LOOKUP_TIMEOUT)

    def refresh_soon(self) -> asyncio.Task[None]:
        """Look all names up again in the background; one lookup at a time."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh(), name="resolve")
        return self._refreshing

    async def _refresh(self) -> None:
        await asyncio.gather(*(self._refresh_one(url) for url in self._urls_to_resolve))

    async def _refresh_one(self, url: str) -> None:
        host = urlsplit(url).hostname or ""
        try:
            addresses = _usable(await self._look_up(host))
        except OSError as error:
            # The last good addresses stay: a resolver that is away is no reason to forget a registry.
            if host not in self._unresolved_hosts:
                log.warning("name_not_resolved", host=host, reason=str(error), keeping=self._resolved.get(url, []))
            self._unresolved_hosts.add(host)
            return
        self._unresolved_hosts.discard(host)
        before = self._resolved.get(url, [])
        self._resolved[url] = sorted(addresses, key=lambda address: hash((self._seed, address)))
        self._rebuild_list()
        kept = self._last_answering.get(url)
        if self._resolved[url] != before and kept is not None and kept not in addresses:
            log.warning(
                "address_kept", host=host, kept=kept, named=addresses, reason="none that DNS names has answered"
            )
            if self._current == RegistryAddress(url, kept) and not self._failing:
                # The registry may have moved: what DNS names now is tried once before its old address.
                self.advance()

    def _rebuild_list(self) -> None:
        """Build the list again; the positions in it stay where their addresses are still in it."""
        had_turn = self._list[self._turn]
        self._list = self._listed()
        self._turn = self._list.index(had_turn) if had_turn in self._list else self._turn % len(self._list)
        self._answering = [each for each in self._answering if each in self._list]
        if self._current not in self._list:
            self._current = self._list[self._turn]

    def _listed(self) -> list[RegistryAddress]:
        return [RegistryAddress(url, address) for url in self._urls for address in self._addresses(url) or [""]]

    def _addresses(self, url: str) -> list[str]:
        resolved, answered = self._resolved.get(url, []), self._last_answering.get(url)
        return resolved if answered is None or answered in resolved else [*resolved, answered]


def _usable(addresses: list[str]) -> list[str]:
    """Return the addresses at which a registry can be.

    Resolvers that block a name answer 0.0.0.0 or ::, which would connect to this machine itself.

    Raises:
        OSError: none is left.
    """
    parsed = [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]
    usable = [
        address for address, ip in zip(addresses, parsed, strict=True) if not (ip.is_unspecified or ip.is_multicast)
    ]
    if not usable:
        raise OSError(f"the resolver named no usable address, only: {', '.join(addresses) or 'none at all'}")
    return usable


def _literal(parts: SplitResult) -> list[str]:
    try:
        return [str(ipaddress.ip_address(parts.hostname or ""))]
    except ValueError:
        return []


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    # Docker's links set variables like tcp://172.17.0.3:8080.
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
