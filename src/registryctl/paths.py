"""Paths of the API."""

from urllib.parse import quote


def path_of(service: str, endpoint: str | None = None, rest: str = "") -> str:
    """Return the path of a service, or of one of its endpoints."""
    path = f"/v1/services/{quote(service, safe='')}"
    return path + (f"/endpoints/{quote(endpoint, safe='')}" if endpoint is not None else "") + rest
