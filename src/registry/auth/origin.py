"""The requests of a browser that are taken: one rule for every front and every contract.

A page on the internet can make the browser of an operator send requests to the registry, in two ways. From its own
name it can only write blindly, and the browser says where the request comes from. Or its owner points that name to the
registry's address (DNS rebinding): then the page is of the same origin as the registry for the browser, and may read
too. So a browser is only answered under names that a page on the internet cannot have.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence

from registry.errors import ForeignError, MisdirectedError, UnreadableError

BROWSER_HEADERS = frozenset(
    {
        b"accept-language",
        b"cookie",
        b"origin",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"sec-fetch-storage-access",
        b"sec-fetch-user",
    }
)
"""Headers that browsers send, and Envoy, curl, registrars and drop-in clients do not."""
BROWSER_AGENT = b"Mozilla/"
"""How the User-Agent of every browser begins."""

_SAFE = ("GET", "HEAD", "OPTIONS")
_OWN_SITES = (b"same-origin", b"none")
_PORT = re.compile(r":\d*$")
_FOREIGN = (
    "a page of another site made your browser send this, so nothing was done; send it from the registry's own pages, "
    "by registryctl or by curl. A proxy in front has to leave the Host header as it was"
)
_MAX_SHOWN = 100
"""Characters of a host name that an error repeats."""


class OriginPolicy:
    """Judges requests by where they come from, as far as a browser tells.

    Args:
        hosts: the names under which browsers are answered, in small letters. Addresses, `localhost` and names without
            a dot are allowed besides, since a page on the internet cannot be served under one.
    """

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._hosts = frozenset(hosts)

    def check(self, method: str, version: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Refuse a request that a page of another site may have made a browser send.

        Args:
            method: in capitals.
            version: of HTTP, like `1.1`.
            headers: with their names in small letters.

        Raises:
            UnreadableError: the request has no Host, or two of them.
            MisdirectedError: a browser asks under a name that is not ours.
            ForeignError: a browser says that a page of another site writes.
        """
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and version != "1.0"):
            raise UnreadableError(f"the request has {len(hosts)} Host headers; HTTP/1.1 requires exactly one")
        by_name = dict(headers)
        if not _is_browser(by_name):
            return
        host = hosts[0].decode("latin-1") if hosts else ""
        if not self.allows(host):
            raise MisdirectedError(_not_ours(host))
        if method not in _SAFE and not _is_same_origin(by_name):
            raise ForeignError(_FOREIGN)

    def allows(self, host: str) -> bool:
        """Tell whether browsers are answered under a Host, which is a name or an address, with or without a port."""
        name = _name_of(host)
        return bool(name) and ("." not in name or name in self._hosts or _is_address(name))


def carries_cookie(method: str, headers: Mapping[bytes, bytes]) -> bool:
    """Tell whether the cookie of a request counts as its credential: whether its own user meant the request.

    A browser sends the cookie of a site along with whatever a page elsewhere makes it ask. A write counts when the
    browser says that a page of ours sends it. A read counts too when a person followed a link, and not when a page of
    another site, or of another port of this host, loads something.

    Args:
        method: in capitals.
        headers: by their names in small letters.
    """
    site = headers.get(b"sec-fetch-site")
    if method in _SAFE:
        return site is None or site in _OWN_SITES or headers.get(b"sec-fetch-mode") == b"navigate"
    if site is not None:
        return site == b"same-origin"
    origin = headers.get(b"origin")
    return origin is not None and _is_host(origin, headers.get(b"host"))


def _is_browser(headers: dict[bytes, bytes]) -> bool:
    return not BROWSER_HEADERS.isdisjoint(headers) or headers.get(b"user-agent", b"").startswith(BROWSER_AGENT)


def _name_of(host: str) -> str:
    return _PORT.sub("", host.strip()).removesuffix(".").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _not_ours(host: str) -> str:
    name = _name_of(host)[:_MAX_SHOWN]
    return (
        f"a browser asked for the host {name!r}, which is no name of this registry: a page on the internet could have "
        "pointed it here (DNS rebinding). If the name is yours, start the registry with "
        f"REGISTRY_HOSTS={name or 'registry.example.com'} (names are separated by commas); or ask by address"
    )


def _is_same_origin(headers: dict[bytes, bytes]) -> bool:
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site in _OWN_SITES
    # Over plain HTTP, but to the very machine, browsers send Origin alone.
    origin = headers.get(b"origin")
    return origin is None or _is_host(origin, headers.get(b"host"))


def _is_host(origin: bytes, host: bytes | None) -> bool:
    named = origin.partition(b"://")[2]
    return bool(named) and host is not None and named.lower() == host.lower()
