"""The registries' URLs and which of them is next."""

from typing import Self
from urllib.parse import urlsplit


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

    def __str__(self) -> str:
        return ",".join(self.urls)


class Targets:
    """Where the next request goes; the place for resolving names again and for connection ages."""

    def __init__(self, urls: RegistryUrls) -> None:
        self._urls = urls.urls
        self._index = 0

    @property
    def current(self) -> str:
        """The base URL to use now."""
        return self._urls[self._index]

    def advance(self) -> None:
        """Turn to the next registry after a failure."""
        self._index = (self._index + 1) % len(self._urls)


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    # Containers that are linked get variables like tcp://172.17.0.3:8080.
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text!r} is no http or https URL; write it like http://10.0.0.2:8080")
    if parts.username or parts.password:
        raise ValueError("a registry URL must not carry a user or a password: URLs are logged")
    if parts.query or parts.fragment:
        raise ValueError(f"{text!r} must not have a query or a fragment")
    _ = parts.port  # raises ValueError when it is no port
    return text.rstrip("/")
