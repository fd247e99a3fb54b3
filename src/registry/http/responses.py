"""The responses of routes."""

from collections.abc import Mapping

import msgspec
from fastapi import Response

from registry.http.lists.document import Conditions, Document


def json(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a document as a response."""
    return Response(msgspec.json.encode(document), status, headers, "application/json")


def listed(document: Document, conditions: Conditions) -> Response:
    """Return a list as the response to a request with these conditions."""
    representation = document.represented_for(conditions)
    response = Response(representation.body, representation.status)
    response.raw_headers = list(representation.headers)
    return response
