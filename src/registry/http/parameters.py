"""Parameters that several routes read: names in the path, pages, forms, the body."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from fastapi import Path, Query

from registry.auth.principal import peer_of
from registry.errors import InvalidError, TooLargeError, UnreadableError
from wire.model import SERVICE_PATTERN
from wire.validation_error import described

Document = TypeVar("Document")

_MAX_FORM = 65_536
"""Bytes of a form, which is decoded in one piece while other requests wait: 64 KiB take 30 ms."""

_MAX_ID = 19
"""Digits of the id of an endpoint."""
_MAX_ADDRESS = 64
"""Characters that are kept of an address which a subscriber names itself."""

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
Force = Annotated[bool, Query(description="Deregister even if the guard's limit is exceeded (otherwise 409).")]
PAGE = 100
"""Items of a page where the request does not say how many."""
MAX_PAGE = 1000
"""Items of one page at most."""
MAX_CURSOR = 512
"""Characters of a cursor."""
MAX_FILTER = 255
"""Characters of a name that is searched for."""
MAX_METADATA_FILTER = 1000
"""Characters of metadata that are searched for."""
PageSize = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items of one page.")]
Cursor = Annotated[str | None, Query(max_length=MAX_CURSOR, description="`next` of the page before.")]


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


def read_endpoint_cursor(cursor: str | None) -> int:
    """Return the id of the endpoint that the page before ended with; 0 for the first page.

    Raises:
        InvalidError: no page gave that cursor.
    """
    if cursor is None:
        return 0
    last = read_cursor(cursor)
    if not (last.isascii() and last.isdigit() and len(last) <= _MAX_ID):
        raise InvalidError("cursor is not one that a page gave as `next`", "query:cursor")
    return int(last)


def printable_filter(name: str, text: str | None) -> str | None:
    """Refuse what PostgreSQL cannot even compare.

    Raises:
        InvalidError: the text has a control character.
    """
    if text is not None and not text.isprintable():
        raise InvalidError("a filter has a control character", f"query:{name}")
    return text


def subscriber_address(forwarded_for: str | None, client: Sequence[Any] | None) -> str:
    """Return the address that a subscriber gives itself, as Envoy does in each poll; else its peer, perhaps a proxy.

    It is shown to people and decides nothing.
    """
    first = forwarded_for.partition(",")[0].strip() if forwarded_for else ""
    return first[:_MAX_ADDRESS] or peer_of(client)


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
        raise InvalidError(*described(error, decoder.type)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableError(f"the body is no JSON: {error}") from None
