"""The flags for all settings, of the verbs that load them."""

import argparse
import os

from registrar.config.configuration import flag, load_launch, load_settings
from registrar.config.registrator import ignored_names
from registrar.config.settings import FLAGS, LaunchSettings, Settings, reference


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting to ``parser``."""
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
        ConfigurationError: they are invalid.
    """
    return load_settings(_flag_values(arguments), os.environ, with_app=with_app)


def launch_of(arguments: argparse.Namespace) -> LaunchSettings:
    """Return the settings that are needed before any file is read.

    Raises:
        ConfigurationError: they are invalid.
    """
    return load_launch(_flag_values(arguments), os.environ)


def ignored_registrator_names(arguments: argparse.Namespace) -> dict[str, str]:
    """Return registrator's variables that are set but ignored, each with what to do instead."""
    return ignored_names(os.environ) if launch_of(arguments).registrator_names else {}


def _flag_values(arguments: argparse.Namespace) -> dict[str, str]:
    return {name: text for name, text in vars(arguments).items() if name in FLAGS}
