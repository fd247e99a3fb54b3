"""``registrar validate``: print the effective settings, or every error in them."""

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
    """Add a flag for each setting."""
    add_flags(parser)


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Print the effective settings as JSON and return 0.

    Raises:
        ConfigurationError: the settings are invalid.
    """
    launch_of(arguments)
    settings = settings_of(arguments)
    try:
        asyncio.run(check_service_names(settings, os.environ))
    except MetadataUnavailable as error:
        sys.stderr.write(f"registrar: warning: the service's name in the task's metadata was not checked: {error}\n")
    for name, fix in ignored_registrator_names(arguments).items():
        sys.stderr.write(f"registrar: warning: {name} is ignored: {fix}\n")
    sys.stdout.write(f"{render(settings)}\n")
    return 0
