"""``registrar drain``: take the running registrar's endpoints out of rotation and deregister them."""

import argparse
import sys
from collections.abc import Sequence

from registrar.admin.client import AdminClient
from registrar.commands.admin_address import add_admin_options, addressed_path, admin_address_of

_NO_WAIT_TIMEOUT = 5.0
"""Seconds to wait for the response that the drain has started."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the address, the registrar that is meant, and whether to wait."""
    add_admin_options(parser)
    parser.add_argument(
        "--no-wait", action="store_true", help="Return when the drain has started, not when it is over."
    )


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Drain the endpoints and return 0 when they are deregistered, or at once with ``--no-wait``.

    Raises:
        AdminRefused: the registry refused the drain, or the request reached another registrar.
        AdminUnavailable: no registrar responds.
        ConfigurationError: the address is invalid.
    """
    wait = not arguments.no_wait
    # Without a timeout: the drain goes on until the registry is reachable.
    client = AdminClient(admin_address_of(arguments), None if wait else _NO_WAIT_TIMEOUT)
    client.request("POST", addressed_path(arguments, "/drain", wait="true" if wait else "false"))
    over = "drained: no endpoint of this registrar is in rotation any more"
    started = "draining: `registrar status` shows when it is over"
    sys.stdout.write(f"{over if wait else started}\n")
    return 0
