"""A discovery request as this process answers it; `wire.discovery_poll` reads its body."""

from msgspec import Struct

from registry.auth.principal import Principal
from registry.core.subscriber import Subscription
from registry.errors import InvalidError, UnreadableError
from registry.xds.resources import RestPath
from wire import discovery_poll
from wire.discovery_poll import InvalidPollError, UnreadablePollError
from wire.node import ANONYMOUS, Node


class DiscoveryRequest(Struct):
    """A discovery request: the names that a node asks for, and the version that it holds already.

    ``subscription`` is set when the request is answered or held; it remembers the earlier ones of the same node.
    ``principal`` is its sender.
    """

    names: tuple[str, ...]
    version_info: str = ""
    node: Node = ANONYMOUS
    subscription: Subscription | None = None
    principal: Principal = Principal("")


def read_request(path: RestPath, *parts: bytes) -> DiscoveryRequest:
    """Read a discovery request.

    Args:
        path: the path that it was posted to.
        parts: the body, in the pieces that it came in.

    Raises:
        UnreadableError: the body is no JSON object of the right types.
        InvalidError: it asks for another resource type, or for too much.
    """
    ends = discovery_poll.read_ends(path, *parts)
    if ends is not None:
        return DiscoveryRequest(*ends)
    try:
        return DiscoveryRequest(*discovery_poll.parse(path, parts[0] if len(parts) == 1 else b"".join(parts)))
    except UnreadablePollError as error:
        raise UnreadableError(str(error)) from None
    except InvalidPollError as error:
        raise InvalidError(str(error), error.pointer) from None
