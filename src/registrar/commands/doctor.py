"""``registrar doctor``: examine this machine or task, and print each problem with its fix."""

import argparse
import asyncio
import os
import sys
from collections import Counter
from collections.abc import Sequence

from registrar.admin.client import AdminClient
from registrar.commands.flags import add_flags, launch_of, settings_of
from registrar.config.conversion import convert
from registrar.config.settings import LaunchSettings, Settings
from registrar.diagnostic import Diagnostic, Section, Severity
from registrar.doctor.examination import Doctor
from registrar.errors import AdminRefused, AdminUnavailable, ConfigurationError
from registrar.event_log import configure_logs
from registrar.registry_client.registries import RegistryUrls

_RUNNING_TIMEOUT = 1.5
"""Seconds to wait for the response of a running registrar."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    add_flags(parser)


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Print all diagnostics and return 0 if none of them is a failure, otherwise 1."""
    configure_logs("error")
    counts = asyncio.run(_examine(*_settings(arguments)))
    running = _running(arguments)
    counts[running.severity] += 1
    sys.stdout.write(f"{Section('Running registrar', [running])}\n\n{_headline(counts)}\n")
    return 1 if counts[Severity.FAIL] else 0


async def _examine(settings: Settings, faults: Sequence[str]) -> Counter[Severity]:
    """Print each section as soon as it is examined, and return the number of diagnostics by severity."""
    counts: Counter[Severity] = Counter()
    async for section in Doctor(settings, faults, os.environ).examine():
        sys.stdout.write(f"{section}\n")
        sys.stdout.flush()
        counts.update(diagnostic.severity for diagnostic in section.diagnostics)
    return counts


def _headline(counts: Counter[Severity]) -> str:
    failures, warnings = counts[Severity.FAIL], counts[Severity.WARN]
    warned = f"; {_number(warnings, 'warning')}" if warnings else ""
    if failures:
        return f"{_number(failures, 'problem')} found{warned}; each FAIL has its fix below it"
    return f"no problem found{warned}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _settings(arguments: argparse.Namespace) -> tuple[Settings, Sequence[str]]:
    """Return the settings and their errors; with errors the settings are the registry URL alone, if it is valid."""
    try:
        launch_of(arguments)
        return settings_of(arguments), ()
    except ConfigurationError as error:
        text = vars(arguments).get("REGISTRAR_REGISTRY_URL") or os.environ.get("REGISTRAR_REGISTRY_URL", "")
        try:
            return Settings(registry_url=convert(text, RegistryUrls)), error.faults
        except ValueError:
            return Settings(), error.faults


def _running(arguments: argparse.Namespace) -> Diagnostic:
    try:
        listen = launch_of(arguments).admin_listen
    except ConfigurationError:
        listen = LaunchSettings().admin_listen
    try:
        status, body = AdminClient(listen, _RUNNING_TIMEOUT).request("GET", "/readyz")
    except AdminUnavailable:
        return Diagnostic(Severity.NOTE, f"no registrar answers at {listen}")
    except AdminRefused as error:
        status, body = 503, str(error).encode()
    if status == 200:
        return Diagnostic(Severity.NOTE, f"a registrar answers at {listen}; `registrar status` shows its state")
    # As where another instance owns the endpoint, which only the registrar that was refused knows.
    text = f"a registrar answers at {listen} and is not ready: {body.decode(errors='replace').strip()}"
    return Diagnostic(Severity.WARN, text, "see `registrar status`, which names each endpoint and what was refused")
