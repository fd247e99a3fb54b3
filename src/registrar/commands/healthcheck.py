"""``registrar healthcheck``: the exit status for the health check of a container."""

import argparse
import sys
from collections.abc import Sequence

from registrar.admin.client import AdminClient
from registrar.commands.admin_address import add_admin_options, addressed_path, admin_address_of

_TIMEOUT = 1.5
"""Seconds to wait for the response; an ECS health check has at least two (its ``timeout``)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the address and the registrar that is meant."""
    add_admin_options(parser)


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Return 0 if the running registrar is healthy, otherwise 1.

    Raises:
        AdminRefused: the request reached another registrar.
        AdminUnavailable: no registrar responds.
        ConfigurationError: the address is invalid.
    """
    status, body = AdminClient(admin_address_of(arguments), _TIMEOUT).request(
        "GET", addressed_path(arguments, "/healthcheck")
    )
    sys.stdout.write(body.decode(errors="replace"))
    return 0 if status == 200 else 1
