"""The endpoint setting: an address, or the rule by which to find one, and a port."""

import ipaddress
from typing import Literal, Self

from wire.address import format_endpoint, parse_endpoint, parse_port

_FORMS = "10.0.0.5:8080, :8080, iface:eth0:8080 or cidr:10.0.0.0/8:8080"


class EndpointSpec:
    """The rule for an endpoint's address, and its port.

    Attributes:
        rule: ``literal``, ``iface``, ``cidr``, or ``any`` for the first source that knows.
        text: the address, the interface or the network; empty for ``any``.
        port: the endpoint's port.
    """

    # No Struct: msgspec would then expect an object instead of text.
    __slots__ = ("port", "rule", "text")

    def __init__(self, rule: Literal["literal", "iface", "cidr", "any"], text: str, port: int) -> None:
        self.rule = rule
        self.text = text
        self.port = port

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read ``10.0.0.5:8080``, ``:8080``, ``iface:NAME:PORT`` or ``cidr:NETWORK:PORT``.

        Raises:
            ValueError: none of these.
        """
        text = str(value).strip()
        head, colon, port = text.rpartition(":")
        if not colon:
            port_alone = f":{text}, or" if text.isdigit() else "it"
            raise ValueError(f"{value!r} is no endpoint; write {port_alone} like {_FORMS}")
        if not head:
            return cls("any", "", parse_port(port))
        if head.startswith("iface:"):
            return cls("iface", _interface(head.removeprefix("iface:")), parse_port(port))
        if head.startswith("cidr:"):
            return cls("cidr", _network(head.removeprefix("cidr:")), parse_port(port))
        try:
            return cls("literal", *parse_endpoint(text))
        except ValueError as error:
            raise ValueError(f"{error}; write it like {_FORMS}") from error

    def __str__(self) -> str:
        match self.rule:
            case "literal":
                return format_endpoint(self.text, self.port)
            case "any":
                return f":{self.port}"
            case _:
                return f"{self.rule}:{self.text}:{self.port}"


def _interface(name: str) -> str:
    if not name:
        raise ValueError(f"iface: names no interface; write it like {_FORMS}")
    return name


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text.strip("[]"), strict=False))
