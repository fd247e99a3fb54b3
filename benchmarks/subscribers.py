"""Streams of ADS from a compiled client in a process of its own, one connection each."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.envoy_poll import poll_body
from benchmarks.peers.go_programs import CLIENT, program
from benchmarks.stdio import Commands


class Report(Struct, frozen=True):
    """What the client saw of one command; times are those of the monotonic clock in nanoseconds."""

    begun: int
    first: int
    last: int
    bytes: int
    silent: int
    ahead: int
    lost: int
    problem: str


class Subscribers:
    """Streams to one server that acknowledge what they are sent."""

    def __init__(self, commands: Commands, first_request: int) -> None:
        self.first_request = first_request
        """Bytes of the first request, nearly all of them the node."""
        self._commands = commands

    def open(self, count: int, together: int | None = None) -> Report:
        """Open streams, so many at a time (all at once without it), and wait for the first answer of each."""
        return self._ask(f"open {count} {together or count}")

    def expect(self) -> Report:
        """Wait until each stream has one more answer.

        Raises:
            RuntimeError: a stream had none or two, so the figures would be those of something else.
        """
        report = self._ask("expect")
        if report.silent or report.ahead or report.lost:
            raise RuntimeError(f"not one answer for each stream: {report}")
        return report

    def churn(self, count: int, together: int) -> Report:
        """Open streams and close each after its first answer."""
        return self._ask(f"churn {count} {together}")

    def close(self) -> Report:
        """Close all streams."""
        return self._ask("close")

    def _ask(self, command: str) -> Report:
        return msgspec.convert(self._commands.ask(command), Report)


@contextlib.contextmanager
def subscribers(port: int, protocol: str, service: str, directory: Path) -> Iterator[Subscribers]:
    """Run a client of a server until the end of the block; ``protocol`` is ``sotw`` or ``delta``."""
    node = directory / "node.json"
    node.write_bytes(msgspec.json.encode(msgspec.json.decode(poll_body(service))["node"]))
    options = {"address": f"127.0.0.1:{port}", "protocol": protocol, "name": service, "node": str(node)}
    command = [program(CLIENT), *(f"-{name}={value}" for name, value in options.items())]
    with Commands.running(command) as (_, commands):
        yield Subscribers(commands, int(commands.read()["bytes"]))
