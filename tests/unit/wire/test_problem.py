"""Problem documents as RFC 9457 wants them."""

import msgspec

from wire.problem import CONTENT_TYPE, Problem


def test_only_what_is_known_is_said() -> None:
    """Members without a value are left out."""
    encoded = msgspec.json.decode(msgspec.json.encode(Problem("Bad Request", 400, "no JSON")))
    assert encoded == {"title": "Bad Request", "status": 400, "detail": "no JSON"}
    assert CONTENT_TYPE == "application/problem+json"


def test_every_member_survives_the_wire() -> None:
    """A registrar reads what the registry wrote."""
    problem = Problem("Conflict", 409, "not yours", "urn:x", "$.weight", 1.5, "i-2", 7, "request-1")
    assert msgspec.json.decode(msgspec.json.encode(problem), type=Problem) == problem


def test_members_of_a_newer_registry_are_ignored() -> None:
    """Answers may grow: an older registrar reads what it knows."""
    body = b'{"title":"Conflict","status":409,"detail":"no","type":"about:blank","since":5}'
    assert msgspec.json.decode(body, type=Problem) == Problem("Conflict", 409, "no")
