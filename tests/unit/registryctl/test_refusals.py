"""Advice on refusals: what an operator does next."""

import pytest

from registryctl.refusals import advice_on_refusal
from registryctl.token import AccessToken
from wire.problem import Problem

TOKEN = AccessToken("hct_secret", "REGISTRYCTL_TOKEN_FILE /run/token")


@pytest.mark.parametrize(
    ("title", "status", "token", "advice"),
    [
        ("Unauthenticated", 401, None, "registryctl login"),
        ("Unauthenticated", 401, TOKEN, "it is from REGISTRYCTL_TOKEN_FILE /run/token; ask"),
        ("Not allowed", 403, TOKEN, "registryctl whoami"),
        ("Not yours", 409, TOKEN, "a token that may `operate`"),
    ],
)
def test_each_refusal_of_access_has_advice(title: str, status: int, token: AccessToken | None, advice: str) -> None:
    """By its title, and by whether there was a token; the token itself is not in it."""
    words = advice_on_refusal(Problem(title, status, "because"), token)
    assert advice in words
    assert "secret" not in words


@pytest.mark.parametrize(
    ("title", "status"), [("Sent from elsewhere", 403), ("Owned by another", 409), ("Too many at once", 409)]
)
def test_other_refusals_of_the_same_status_have_none(title: str, status: int) -> None:
    """A page of another site, a fenced instance and the guard have errors of their own."""
    assert advice_on_refusal(Problem(title, status, "because"), TOKEN) == ""
