"""``registrar drain``: take the running registrar's endpoints out of rotation, for good."""

import argparse
import sys
from collections.abc import Sequence

from registrar.admin.client import AdminClient
from registrar.commands.admin_address import add_admin_options, addressed_path, admin_address_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the place to ask, and whether to wait."""
    add_admin_options(parser)
    parser.add_argument("--no-wait", action="store_true", help="Return at once instead of when the drain is over.")


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Return 0 when everything is deregistered, or with ``--no-wait`` when the drain has begun.

    Raises:
        AdminRefused: the registry would not have it, or another registrar answers.
        AdminUnavailable: no registrar answers.
        ConfigurationError: the place cannot be used.
    """
    wait = not arguments.no_wait
    # A drain lasts as long as the registry is away.
    local = AdminClient(admin_address_of(arguments), None if wait else 5.0)
    local.request("POST", addressed_path(arguments, "/drain", wait="true" if wait else "false"))
    sys.stdout.write("drained\n" if wait else "draining\n")
    return 0
