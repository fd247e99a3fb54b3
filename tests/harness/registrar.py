"""Registrar processes, started as users start them."""

import contextlib
import itertools
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.process import running, script

_numbers = itertools.count(1)


class Registrar:
    """A running `registrar run`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def said(self, word: str) -> bool:
        """Tell whether its log has a word."""
        return word in self.log.read_text()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it as kill -9 does."""
        self.process.kill()
        self.process.wait(5)


@contextlib.contextmanager
def registrar(
    directory: Path,
    url: str,
    service: str,
    endpoint: str,
    *,
    env: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
    **settings: str,
) -> Iterator[Registrar]:
    """Run `registrar run` for one endpoint until the end of the block; settings without their prefix.

    ``within`` is a command that executes the one behind it.
    """
    endpoint_settings = {
        "service": service,
        "endpoint": endpoint,
        "instance_id": f"i-{endpoint}",
        "check_interval": "300ms",
        "check_http_path": "/healthz",
    }
    with _registrar(directory, {"registry_url": url, **endpoint_settings, **settings}, env or {}, within) as started:
        yield started


@contextlib.contextmanager
def registrar_of(
    directory: Path, url: str, config: Path, within: Sequence[str] = (), **settings: str
) -> Iterator[Registrar]:
    """Run `registrar run` for what a file names; ``within`` is a command that executes the one behind it."""
    with _registrar(directory, {"registry_url": url, "config": str(config), **settings}, {}, within) as started:
        yield started


@contextlib.contextmanager
def _registrar(
    directory: Path, settings: Mapping[str, str], env: Mapping[str, str], within: Sequence[str] = ()
) -> Iterator[Registrar]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRAR_")}
    variables = {f"REGISTRAR_{name.upper()}": value for name, value in settings.items()}
    log = directory / f"registrar-{next(_numbers)}.log"
    with running([*within, *script("registrar"), "run"], env={**inherited, **variables, **env}, log=log) as process:
        yield Registrar(process, log)
