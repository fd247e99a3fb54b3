"""From a container's port to the host's, in bridge mode: pure rules over what the agent says."""

import ipaddress

from registrar.errors import AddressError
from registrar.identity.metadata import Container, Port, Task


def host_port(task: Task, container: str, port: int, *, ipv6: bool = False) -> int | None:
    """Return the host's port behind which ``port`` of the app's container is.

    Without a name the container is the one that maps the port. None means that it may still start.

    Raises:
        AddressError: nothing that is still to start can change that it is not mapped, or not only once.
    """
    if container and task.container(container) is None:
        # One that was not created yet is not in the list either.
        return None
    candidates = [one for one in task.containers if container in ("", one.name)]
    found = {one.name: mapped for one in candidates if (mapped := _mapped(one, port, ipv6=ipv6))}
    if len(found) > 1:
        raise AddressError(
            f"port {port} is mapped by the containers {' and '.join(found)}",
            "set REGISTRAR_CONTAINER to the one that has the app",
        )
    if found:
        return next(iter(found.values()))
    if any(not _started(one) for one in candidates):
        return None
    raise _unmapped(candidates, port)


def _mapped(container: Container, port: int, *, ipv6: bool) -> int:
    """Return the host's port, or 0.

    Docker lists one entry for each address that it binds, and may give IPv4 and IPv6 different ports: the
    address that will be advertised tells which one counts.
    """
    entries = [
        one
        for one in container.ports or ()
        if one.container_port == port and one.host_port and one.protocol == "tcp" and not _loopback(one)
    ]
    return min(entries, key=lambda one: (":" in one.host_ip) != ipv6).host_port if entries else 0


def _loopback(port: Port) -> bool:
    try:
        return ipaddress.ip_address(port.host_ip).is_loopback
    except ValueError:
        # Empty, or no address: then it is every interface, as far as anybody says.
        return False


def _started(container: Container) -> bool:
    return bool(container.started_at)


def _unmapped(candidates: list[Container], port: int) -> AddressError:
    names = " and ".join(one.name for one in candidates) or "(none)"
    there = sorted({one.container_port for container in candidates for one in container.ports or ()})
    mapped = f"it maps {', '.join(map(str, there))}" if there else "it maps no port"
    return AddressError(
        f"bridge mode: port {port} of {names} is not mapped to the host; {mapped}",
        "let REGISTRAR_ENDPOINT have the container's port, like :8080, and the task definition's portMappings as well",
    )
