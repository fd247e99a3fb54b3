"""``registrar envoy-ready``: wait until the Envoy beside this process is live."""

import argparse
import contextlib
import http.client
import sys
import time
from collections.abc import Sequence

from registrar.duration import Duration
from registrar.errors import ConfigurationError
from wire.address import format_endpoint, parse_endpoint

ADMIN = "127.0.0.1:9901"
"""Address of Envoy's admin interface in every bootstrap of this project."""
_WITHIN = "60s"
_REQUEST_TIMEOUT = 1.0
"""Seconds for one request, which Envoy's main thread answers."""
_INTERVAL = 0.25
"""Seconds between two requests."""
LIVE = "LIVE"
"""Envoy's word for a server that has its listeners and accepts requests (its admin interface, ``/ready``)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the address and the wait."""
    parser.add_argument(
        "--admin", metavar="<address>", default=ADMIN, help=f"Address of Envoy's admin interface. Default: {ADMIN}."
    )
    parser.add_argument(
        "--within",
        metavar="<duration>",
        default=_WITHIN,
        help=f"How long to wait; 0s asks once, as a health check does. Default: {_WITHIN}.",
    )


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Return 0 as soon as Envoy is live, and 1 if it is not live in time.

    Raises:
        ConfigurationError: an argument is invalid.
    """
    try:
        within = Duration.parse(arguments.within)
    except ValueError as error:
        raise ConfigurationError([f"--within: {error}"]) from error
    deadline = time.monotonic() + within
    while (problem := not_ready(arguments.admin)) and time.monotonic() < deadline:
        time.sleep(_INTERVAL)
    if problem:
        sys.stderr.write(f"registrar: {f'after {within}: ' if within else ''}{problem}\n")
        return 1
    sys.stdout.write(f"Envoy is {LIVE}\n")
    return 0


def not_ready(admin: str) -> str:
    """Ask the admin interface at this address once; return why Envoy is not live, or an empty text.

    Raises:
        ConfigurationError: the address is invalid.
    """
    try:
        host, port = parse_endpoint(admin)
    except ValueError as error:
        raise ConfigurationError([f"address of Envoy's admin interface: {error}; write it like {ADMIN}"]) from error
    place = f"Envoy's admin interface at {format_endpoint(host, port)}"
    try:
        with contextlib.closing(http.client.HTTPConnection(host, port, timeout=_REQUEST_TIMEOUT)) as connection:
            connection.request("GET", "/ready")
            response = connection.getresponse()
            state = response.read(256).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"{place} does not answer ({str(error) or type(error).__name__}); read the log of Envoy's container"
    if response.status == 200 and state == LIVE:
        return ""
    return f"{place} says {state or response.status}{_MEANINGS.get(state, '')}"


_MEANINGS = {
    "INITIALIZING": ": it waits for a first answer of the registry",
    "PRE_INITIALIZING": ": it waits for the registry, which does not answer, or refuses its token",
    "DRAINING": ": it is being stopped, or /healthcheck/fail was asked for",
}
"""What each state of Envoy but LIVE means to an operator."""
