"""A change of several endpoints in one request, and its result for each."""

from collections.abc import Mapping, Sequence

from msgspec import Raw

from registryctl.client import read
from registryctl.errors import RejectedError
from registryctl.paths import path_of
from registryctl.session import Session


def change_endpoints(
    session: Session,
    service: str,
    endpoints: Sequence[str],
    action: str,
    reason: str,
    more: Mapping[str, object] | None = None,
) -> int:
    """Change several endpoints, print what became of each, and return 4 when one was refused.

    Args:
        session: the session of the verb.
        service: the service of all of them.
        endpoints: as ``ip:port``.
        action: what to do: drain, undrain, weight or deregister.
        reason: why, for the history of each.
        more: further fields of the request.
    """
    document = {"action": action, "endpoints": list(endpoints), "reason": reason} | dict(more or {})
    body = Raw(session.client.ask("POST", path_of(service, rest="/bulk"), document=document).content)
    results = read(body)["results"]
    if session.json:
        session.screen.document(body)
    for result in () if session.json else results:
        name = f"{service} {result['endpoint']}  "
        if result["done"]:
            session.screen.say(name, session.screen.status(result["status"]) if result["status"] else "deregistered")
        else:
            session.screen.say(name, ("refused: ", "red"), result["problem"]["detail"])
    return 0 if all(result["done"] for result in results) else RejectedError.status
