"""``registrar validate``: print the effective settings, or what is wrong with them."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from registrar.commands.flags import add_flags, ignored_registrator_names, launch_of, settings_of
from registrar.config.conversion import render
from registrar.endpoint.endpoints import check_service_names
from registrar.errors import MetadataUnavailable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take every setting."""
    add_flags(parser)


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Print them as JSON.

    Raises:
        ConfigurationError: they cannot be used.
    """
    launch_of(arguments)
    settings = settings_of(arguments)
    try:
        asyncio.run(check_service_names(settings, os.environ))
    except MetadataUnavailable as error:
        sys.stderr.write(f"registrar: the service's name in the task was not checked: {error}\n")
    for name, fix in ignored_registrator_names(arguments).items():
        sys.stderr.write(f"registrar: {name} is not read: {fix}\n")
    sys.stdout.write(f"{render(settings)}\n")
    return 0
