"""The URL of a static server's object for each service."""

from typing import Self
from urllib.parse import quote, urlsplit

from registrar.registry_client.registries import RegistryUrls

PLACEHOLDER = "{service}"


class FallbackUrl:
    """The URL of an object of each service, with a place for its name."""

    __slots__ = ("template",)

    def __init__(self, template: str = "") -> None:
        self.template = template

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a URL with ``{service}`` in its path.

        Raises:
            ValueError: it is not http or https, or has no place for the service.
        """
        text = str(value).strip()
        if not text:
            return cls()
        if PLACEHOLDER not in urlsplit(text).path:
            raise ValueError(
                f"{text!r} has no {PLACEHOLDER} in its path; write it like https://host/{PLACEHOLDER}.json"
            )
        RegistryUrls.parse(text.replace(PLACEHOLDER, "x"))
        return cls(text)

    def __bool__(self) -> bool:
        return bool(self.template)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FallbackUrl) and other.template == self.template

    def __hash__(self) -> int:
        return hash(self.template)

    def __str__(self) -> str:
        return self.template

    def of(self, service: str) -> str:
        """Return the URL of a service's object."""
        return self.template.replace(PLACEHOLDER, quote(service, safe=""))
