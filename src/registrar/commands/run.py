"""``registrar run``: check the endpoints and keep them registered until a stop."""

import argparse
import asyncio
from collections.abc import Sequence
from functools import partial

from registrar.commands.flags import add_flags, ignored_registrator_names, launch_of, settings_of
from registrar.event_log import EventLogger, configure_logs
from registrar.lifecycle.serve import serve

log = EventLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    add_flags(parser)


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT, or until the app ends if there is one.

    Raises:
        AppNotStarted: the command cannot be run.
        ConfigurationError: the settings are invalid.
    """
    # Also an error in the settings must not wait for a reader of the log.
    configure_logs()
    load = partial(settings_of, arguments, with_app=bool(command))
    configure_logs(load().log_level)
    for name, fix in ignored_registrator_names(arguments).items():
        log.warning("registrator_name_ignored", name=name, fix=fix)
    return asyncio.run(serve(load, launch_of(arguments), command))
