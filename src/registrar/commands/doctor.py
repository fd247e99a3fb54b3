"""``registrar doctor``: what keeps a registrar from working here, and how to mend it."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from registrar.admin.client import AdminClient
from registrar.commands.flags import add_flags, launch_of, settings_of
from registrar.config.conversion import convert
from registrar.config.settings import LaunchSettings, Settings
from registrar.diagnostic import Diagnostic, Section, Severity
from registrar.doctor.examination import Doctor
from registrar.errors import AdminUnavailable, ConfigurationError
from registrar.registry_client.registries import RegistryUrls
from wire.logging import configure_logs

_PATIENCE = 1.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take every setting."""
    add_flags(parser)


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Print what was found; return 0 when nothing has to be mended, else 1."""
    configure_logs("error")
    failed = asyncio.run(_examine(*_settings(arguments)))
    sys.stdout.write(f"{_running(arguments)}\n")
    sys.stdout.write("\nSomething has to be mended.\n" if failed else "\nA registrar would work here.\n")
    return 1 if failed else 0


async def _examine(settings: Settings, faults: Sequence[str]) -> bool:
    failed = False
    async for section in Doctor(settings, faults, os.environ).examine():
        sys.stdout.write(f"{section}\n")
        sys.stdout.flush()
        failed = failed or section.failed
    return failed


def _settings(arguments: argparse.Namespace) -> tuple[Settings, Sequence[str]]:
    """Return the settings and their faults; with faults only what can be used by itself."""
    try:
        launch_of(arguments)
        return settings_of(arguments), ()
    except ConfigurationError as error:
        given = vars(arguments).get("REGISTRAR_REGISTRY_URL") or os.environ.get("REGISTRAR_REGISTRY_URL", "")
        try:
            return Settings(registry_url=convert(given, RegistryUrls)), error.faults
        except ValueError:
            return Settings(), error.faults


def _running(arguments: argparse.Namespace) -> Section:
    try:
        listen = launch_of(arguments).admin_listen
    except ConfigurationError:
        listen = LaunchSettings().admin_listen
    try:
        AdminClient(listen, _PATIENCE).request("GET", "/livez")
    except AdminUnavailable:
        diagnostic = Diagnostic(Severity.NOTE, f"none answers at {listen}")
    else:
        diagnostic = Diagnostic(Severity.NOTE, f"one answers at {listen}; `registrar status` says how it is")
    return Section("Running registrar", [diagnostic])
