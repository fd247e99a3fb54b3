"""Links from the console to other systems, such as dashboards and logs, as templates of URLs."""

import re
from collections.abc import Mapping
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from msgspec import Struct

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_DOTS = (".", "..")


class LinkTemplate(Struct, frozen=True):
    """The name of a link, and the template of its URL."""

    name: str
    url: str

    @classmethod
    def parse(cls, text: str, allowed: frozenset[str]) -> Self:
        """Return a link that is written as ``Name=URL``.

        Args:
            text: the link.
            allowed: the placeholders that it may have, without braces.

        Raises:
            ValueError: it is none, with what is allowed.
        """
        name, equals, url = text.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise ValueError(
                f"{name[:40]!r} has to begin with a name and an equals sign, like Logs=https://logs.example.com/"
                "{service}; a name has letters, digits and . _ -"
            )
        parts = urlsplit(url)
        if parts.port == 0:
            raise ValueError(f"the link {name} has no port that can be connected to")
        # Metadata, which registrars send, must not choose the host that people are sent to.
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError(f"the link {name} has to begin with http:// or https:// and a host, without a user")
        if not url.isascii() or not url.isprintable() or "\\" in url or "{" in parts.netloc:
            raise ValueError(f"the link {name} has to be a URL of printable ASCII, and its host without placeholders")
        unknown = sorted(set(_PLACEHOLDER.findall(url)) - allowed)
        if unknown or set(_PLACEHOLDER.sub("", url)) & {"{", "}"}:
            shown = f"{{{unknown[0]}}}" if unknown else "a single brace"
            known = ", ".join(f"{{{each}}}" for each in sorted(allowed))
            raise ValueError(f"the link {name} has {shown}; it may have {known}. A brace itself is written %7B or %7D")
        return cls(name, url)

    def fill(self, values: Mapping[str, str]) -> str | None:
        """Return the URL for some values, each percent-encoded; None where a value that it needs is empty."""
        needed = set(_PLACEHOLDER.findall(self.url))
        if not all(values[name] for name in needed):
            return None
        url = _PLACEHOLDER.sub(lambda match: quote(values[match[1]], safe=""), self.url)
        # Browsers resolve these, encoded or not, so that an instance called ".." would lead elsewhere.
        climbs = any(unquote(segment) in _DOTS for segment in urlsplit(url).path.split("/"))
        return None if climbs else url


SERVICE_PLACEHOLDERS = frozenset({"service"})
"""Placeholders of a link of a service."""
ENDPOINT_PLACEHOLDERS = SERVICE_PLACEHOLDERS | {"endpoint", "address", "port", "instance", "region", "zone", "revision"}
"""Placeholders of a link of an endpoint."""
