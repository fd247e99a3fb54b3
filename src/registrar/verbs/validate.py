"""``registrar validate``: print the effective settings, or what is wrong with them."""

import argparse
import sys
from collections.abc import Sequence

from registrar.conversion import render
from registrar.verbs.flags import add_flags, launch_of, settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take every setting."""
    add_flags(parser)


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Print them as JSON.

    Raises:
        ConfigurationError: they cannot be used.
    """
    launch_of(arguments)
    sys.stdout.write(f"{render(settings_of(arguments))}\n")
    return 0
