"""One caller's use of one service or address."""

from meshconfig.definition.header_changes import HeaderChanges
from meshconfig.definition.policies import Policies
from meshconfig.definition.route import Route
from meshconfig.field_types import DependencyName, Host, HostHeader, HostPort, Protocol, ServiceName


class Dependency(Policies, frozen=True, kw_only=True):
    """One caller's use of one service or address.

    Attributes:
        name: its name, which is Envoy's cluster name and the host that the app calls; the service's unless written.
        service: the registered service.
        address: host:port of what is not registered, which DNS resolves.
        group: in place of all else, the group whose dependencies the file has.
        cluster: Envoy's name of the cluster, where a migration has to keep one.
        hosts: the hosts that the app may call it by; its name unless written.
        host_header: the Host that the callee gets; the app's unless written.
        headers: changes of request headers.
        protocol: the protocol that the callee speaks; what it provides unless written.
        routes: its routes, of which the first that matches counts; one that takes all unless written.
    """

    name: DependencyName | None = None
    service: ServiceName | None = None
    address: HostPort | None = None
    group: str | None = None
    cluster: DependencyName | None = None
    hosts: tuple[Host, ...] = ()
    host_header: HostHeader | None = None
    headers: HeaderChanges = HeaderChanges()
    protocol: Protocol = "http1"
    routes: tuple[Route, ...] = ()
