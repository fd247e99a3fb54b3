"""The responses of routes."""

from collections.abc import Mapping

import msgspec
from fastapi import Response


def json(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a document as a response."""
    return Response(msgspec.json.encode(document), status, headers, "application/json")
