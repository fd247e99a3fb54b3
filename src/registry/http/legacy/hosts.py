"""Requests for hosts by v1 SDS, as the fast protocol reads and answers them.

The routes answer the same requests; what cannot be answered at once from memory is left to them.
"""

import re
from functools import lru_cache

from msgspec import Struct

from registry.auth.principal import Principal
from registry.usecases.drop_in import DropInHosts

METHODS = (b"GET", b"HEAD")
"""The methods by which hosts are asked for."""

_MAX_URLS = 4096
"""Addresses of requests that are remembered as read."""
_MAX_URL = 300
"""Bytes of an address that is read here: no longer one is of a request for hosts, and what is remembered is bounded."""
_URL = re.compile(rb"/v1/registration/(?:(repo)/)?([A-Za-z0-9._-]{1,255})(/?)")
"""An address that needs no decoding. Routes try the path of repositories first, as the expression does."""


class HostsRequest(Struct, frozen=True):
    """A request for hosts.

    Attributes:
        name: of the service or of the repository.
        is_repository: whether it is that of a repository.
        route: the path of its route, for the metrics.
    """

    name: str
    is_repository: bool
    route: str

    def answer(self, hosts: DropInHosts, principal: Principal, subscriber: str) -> bytes | None:
        """Return the response, as JSON; None when a route has to say what is wrong."""
        if self.is_repository:
            return hosts.known_of_repository(principal, self.name)
        return hosts.known_of_service(principal, self.name, subscriber)


def read_hosts_request(url: bytes) -> HostsRequest | None:
    """Return the request that an address makes; None for every other one, and for one that needs decoding."""
    return _read(url) if len(url) <= _MAX_URL else None


@lru_cache(maxsize=_MAX_URLS)
def _read(url: bytes) -> HostsRequest | None:
    match = _URL.fullmatch(url)
    if match is None:
        return None
    repository, name, slash = match.groups()
    path = "/v1/registration/repo/{repository}" if repository else "/v1/registration/{service}"
    return HostsRequest(name.decode(), repository is not None, path + slash.decode())
