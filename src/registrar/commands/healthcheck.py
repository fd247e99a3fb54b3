"""``registrar healthcheck``: the exit status for a container's health check."""

import argparse
import sys
from collections.abc import Sequence

from registrar.admin.client import AdminClient
from registrar.commands.admin_address import add_admin_options, addressed_path, admin_address_of

# Below the two seconds that are the least of an ECS health check.
_PATIENCE = 1.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the place to ask."""
    add_admin_options(parser)


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Return 0 when the running registrar says that it is healthy, else 1.

    Raises:
        AdminRefused: another registrar answers.
        AdminUnavailable: no registrar answers.
        ConfigurationError: the place cannot be used.
    """
    status, said = AdminClient(admin_address_of(arguments), _PATIENCE).request(
        "GET", addressed_path(arguments, "/healthcheck")
    )
    sys.stdout.write(said.decode(errors="replace"))
    return 0 if status == 200 else 1
