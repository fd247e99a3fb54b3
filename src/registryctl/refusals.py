"""Advice on refusals: what to do when the registry says that the sender may not do something."""

from registryctl.token import AccessToken
from wire.problem import Problem

LOG_IN = "run `registryctl login` with a token of your administrator, or set REGISTRYCTL_TOKEN_FILE"
"""What to do without a token."""


def advice_on_refusal(problem: Problem, token: AccessToken | None) -> str:
    """Return what to do about a problem of access; empty when it is another one.

    Args:
        problem: the registry's answer.
        token: the token that was sent; None: none was.
    """
    if problem.status == 401:
        if token is None:
            return LOG_IN
        return f"it is from {token.source}; ask your administrator for another, then `registryctl login`"
    if problem.status == 403 and problem.title == "Not allowed":
        return "`registryctl whoami` shows what you may do; an administrator makes a token that may do more"
    if problem.status == 409 and problem.title == "Not yours":
        return "leave it to the registrar that registered it, or change it with a token that may `operate`"
    return ""
