"""The settings as flags, for the verbs that take all of them."""

import argparse
import os

from registrar.config.configuration import flag, load_launch, load_settings
from registrar.config.registrator import ignored_names
from registrar.config.settings import FLAGS, LaunchSettings, Settings, reference


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` a flag for each setting."""
    for line in reference():
        if line.name in FLAGS:
            default = f" Default: {line.default}." if line.default else ""
            parser.add_argument(
                flag(line.name),
                dest=line.name,
                metavar=f"<{line.type}>",
                default=argparse.SUPPRESS,
                help=f"{line.description}{default}".replace("%", "%%"),
            )


def settings_of(arguments: argparse.Namespace, *, with_app: bool = False) -> Settings:
    """Return the effective settings; flags win over the environment.

    Raises:
        ConfigurationError: they cannot be used.
    """
    return load_settings(_given(arguments), os.environ, with_app=with_app)


def launch_of(arguments: argparse.Namespace) -> LaunchSettings:
    """Return what is needed before any file is read.

    Raises:
        ConfigurationError: it cannot be used.
    """
    return load_launch(_given(arguments), os.environ)


def ignored_registrator_names(arguments: argparse.Namespace) -> dict[str, str]:
    """Return registrator's variables that are set and not read, each with what to do instead."""
    return ignored_names(os.environ) if launch_of(arguments).registrator_names else {}


def _given(arguments: argparse.Namespace) -> dict[str, str]:
    return {name: text for name, text in vars(arguments).items() if name in FLAGS}
