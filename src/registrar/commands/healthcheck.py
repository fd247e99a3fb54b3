"""``registrar healthcheck``: the exit status for the health check of a container."""

import argparse
import sys
from collections.abc import Sequence

from registrar.admin.client import AdminClient
from registrar.commands.admin_address import add_admin_options, addressed_path, admin_address_of
from registrar.commands.envoy_ready import not_ready

_TIMEOUT = 1.5
"""Seconds to wait for the response; an ECS health check has at least two (its ``timeout``)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the address, the registrar that is meant, and Envoy."""
    add_admin_options(parser)
    parser.add_argument(
        "--envoy",
        metavar="<address>",
        default="",
        help="Also fail while the Envoy whose admin interface has this address, like 127.0.0.1:9901, is not live: an "
        "image of Envoy without a shell cannot ask itself.",
    )


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Return 0 if the running registrar is healthy, and its Envoy if one is named, otherwise 1.

    Raises:
        AdminRefused: the request reached another registrar.
        AdminUnavailable: no registrar responds.
        ConfigurationError: the address is invalid.
    """
    status, body = AdminClient(admin_address_of(arguments), _TIMEOUT).request(
        "GET", addressed_path(arguments, "/healthcheck")
    )
    sys.stdout.write(body.decode(errors="replace"))
    problem = not_ready(arguments.envoy) if status == 200 and arguments.envoy else ""
    if problem:
        sys.stderr.write(f"registrar: {problem}\n")
    return 0 if status == 200 and not problem else 1
