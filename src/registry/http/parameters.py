"""Parts of a request that several routes read: the replica, names in the path, the body."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from fastapi import Depends, Path, Query, Request

from registry.auth.principal import peer_of
from registry.core.endpoint import Key
from registry.errors import InvalidError, TooLargeError, UnavailableError, UnreadableError
from registry.process import RegistryProcess
from wire.address import parse_endpoint
from wire.model import SERVICE_PATTERN
from wire.validation_message import validation_message

Document = TypeVar("Document")

_MAX_FORM = 65_536
"""Bytes of a form, decoded in one piece while everybody else waits: 64 KiB take 30 ms."""

ServiceName = Annotated[
    str,
    Path(
        max_length=255,
        # pydantic's engine has no look-ahead, and needs none: its $ is the end and nothing else.
        pattern=SERVICE_PATTERN.removesuffix(r"(?!\n)"),
        description="The name that Envoy's EDS cluster asks for.",
        examples=["shop"],
    ),
]
EndpointName = Annotated[
    str,
    Path(max_length=64, description="ip:port; IPv6 in brackets.", examples=["10.0.0.5:8080"]),
]
InstanceId = Annotated[
    str | None, Query(max_length=255, description="Only if this instance owns the endpoint, else 409.")
]
IncarnationNumber = Annotated[
    int | None, Query(ge=1, le=2**53, description="Only if no newer incarnation owns the endpoint, else 409.")
]
Reason = Annotated[str, Query(max_length=1000, description="Why, for the history.")]
Force = Annotated[bool, Query(description="Also when more leave than the guard lets go at once, which is 409 else.")]
PageSize = Annotated[int, Query(ge=1, le=1000, description="Items of one page.")]
Cursor = Annotated[str | None, Query(max_length=512, description="`next` of the page before.")]


async def _process(request: Request) -> RegistryProcess:
    process = request.app.state.process
    if not isinstance(process, RegistryProcess):
        raise TypeError("the application was built without a replica")
    return process


async def _ready(process: Annotated[RegistryProcess, Depends(_process)]) -> RegistryProcess:
    if not process.cache.ready:
        raise UnavailableError("this process has not read the registry's state yet")
    return process


AnyReplica = Annotated[RegistryProcess, Depends(_process)]
ReadyReplica = Annotated[RegistryProcess, Depends(_ready)]


def endpoint_key(service: str, endpoint: str, pointer: str = "path:endpoint") -> Key:
    """Return the key of an endpoint that a request names.

    Raises:
        InvalidError: it is no ip:port that traffic could be sent to.
    """
    try:
        return (service, *parse_endpoint(endpoint))
    except ValueError as error:
        raise InvalidError(str(error), pointer) from None


def write_cursor(last: str) -> str:
    """Return the cursor of the page after the one that ends with ``last``."""
    return base64.urlsafe_b64encode(last.encode()).decode()


def read_cursor(cursor: str) -> str:
    """Return what the page before ended with.

    Raises:
        InvalidError: no page gave that cursor.
    """
    try:
        return base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise InvalidError("cursor is not one that a page gave as `next`", "query:cursor") from None


def printable_filter(name: str, text: str | None) -> str | None:
    """Refuse what PostgreSQL cannot even compare.

    Raises:
        InvalidError: the text has a control character.
    """
    if text is not None and not text.isprintable():
        raise InvalidError("a filter has a control character", f"query:{name}")
    return text


def subscriber_address(forwarded_for: str | None, client: Sequence[Any] | None) -> str:
    """Return where a subscriber says it is, as Envoy does in each poll; else its peer, which may be a proxy.

    It is shown to people and decides nothing.
    """
    told = forwarded_for.partition(",")[0].strip() if forwarded_for else ""
    return told[:64] or peer_of(client)


def read_form(body: bytes, max_fields: int) -> dict[str, str]:
    """Return the fields of a form, the last one of each name, however its content type is written.

    Raises:
        TooLargeError: it is longer than any form of ours; decoding a megabyte of %41 takes half a second.
        ValueError: it is no UTF-8, or has more than ``max_fields`` fields.
    """
    if len(body) > _MAX_FORM:
        raise TooLargeError(f"the form has {len(body)} bytes; at most {_MAX_FORM} are allowed")
    return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=max_fields, errors="strict"))


def decode(decoder: msgspec.json.Decoder[Document], body: bytes) -> Document:
    """Read a JSON document strictly.

    Raises:
        UnreadableError: it is no JSON, or no UTF-8.
        InvalidError: a value is of the wrong type or out of range, or a field is unknown.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        pointer = path.rstrip("`") or "$"
        raise InvalidError(validation_message(message, pointer), pointer) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableError(f"the body is no JSON: {error}") from None
