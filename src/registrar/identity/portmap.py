"""The host port of a container port in bridge mode: pure rules over the agent's metadata."""

import ipaddress

from registrar.errors import AddressError
from registrar.identity.metadata import Container, Port, Task


def host_port(task: Task, container: str, port: int, *, ipv6: bool = False) -> int | None:
    """Return the host port that ``port`` of the app's container is mapped to; None while the container may still start.

    Without a name the container is the one that maps the port.

    Raises:
        AddressError: the port is not mapped, or by several containers, and all of them have started.
    """
    if container and task.container(container) is None:
        # One that was not created yet is not in the list either.
        return None
    candidates = [each for each in task.containers if container in ("", each.name)]
    host_ports = {each.name: mapped for each in candidates if (mapped := _mapped(each, port, ipv6=ipv6))}
    if len(host_ports) > 1:
        raise AddressError(
            f"port {port} is mapped by the containers {' and '.join(host_ports)}",
            "set REGISTRAR_CONTAINER to the one that has the app",
        )
    if host_ports:
        return next(iter(host_ports.values()))
    if any(not _started(each) for each in candidates):
        return None
    raise _unmapped(candidates, port)


def _mapped(container: Container, port: int, *, ipv6: bool) -> int:
    """Return the host port of a container's port, or 0.

    Docker lists an entry for each address that it binds, and may give IPv4 and IPv6 different ports: the entry of the
    advertised address's family counts.
    """
    entries = [
        entry
        for entry in container.ports or ()
        if entry.container_port == port and entry.host_port and entry.protocol == "tcp" and not _loopback(entry)
    ]
    return min(entries, key=lambda entry: (":" in entry.host_ip) != ipv6).host_port if entries else 0


def _loopback(port: Port) -> bool:
    try:
        return ipaddress.ip_address(port.host_ip).is_loopback
    except ValueError:
        # Empty, or no address: the port is mapped on every interface.
        return False


def _started(container: Container) -> bool:
    return bool(container.started_at)


def _unmapped(candidates: list[Container], port: int) -> AddressError:
    names = " and ".join(candidate.name for candidate in candidates) or "(none)"
    ports = sorted({entry.container_port for container in candidates for entry in container.ports or ()})
    mapped = f"it maps {', '.join(map(str, ports))}" if ports else "it maps no port"
    return AddressError(
        f"bridge mode: port {port} of {names} is not mapped to the host; {mapped}",
        "let REGISTRAR_ENDPOINT have the container's port, like :8080, and the task definition's portMappings as well",
    )
