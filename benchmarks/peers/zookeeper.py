"""ZooKeeper, one server: a node for each endpoint, and each change flushed to its log before it is answered.

The load is ZooKeeper's own client in Java, a session for each connection, each with one request under way.
"""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

from harness.process import eventually, free_port, running

from benchmarks.peers import java_programs
from benchmarks.peers.side import end_of
from benchmarks.population import Population
from benchmarks.stage import address, cpu_seconds, registration
from benchmarks.stdio import Commands
from benchmarks.wrk import Measured

NAME = "ZooKeeper"
_SERVER = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_CLIENT = "headcount.zookeeper.Client"
_START_TIMEOUT = 60.0
_QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"

# It counts the connections of an address, and has a port of its own for administrators.
_CONFIGURATION = """\
dataDir={directory}/zookeeper
clientPort={port}
clientPortAddress=127.0.0.1
maxClientCnxns=0
admin.enableServer=false
"""


class ZooKeeper:
    """A running server, and the sessions that load it."""

    def __init__(self, pid: int, commands: Commands) -> None:
        self.pid = pid
        self._commands = commands

    def register(self, numbers: range) -> None:
        """Make the nodes of the endpoints of these numbers."""
        self._commands.ask(f"create {numbers.start} {numbers.stop}")

    def read(self, service: str, seconds: float) -> Measured:
        """Read the endpoints of a service."""
        return self._measure(f"read /{service} {seconds}")

    def renew(self, seconds: float) -> Measured:
        """Set the nodes of all endpoints in turn."""
        return self._measure(f"set {seconds}")

    def _measure(self, command: str) -> Measured:
        before = cpu_seconds(self.pid)
        told = self._commands.ask(command)
        used = cpu_seconds(self.pid) - before
        if told["failed"]:
            raise RuntimeError(f"{told['failed']} of {told['requests']} requests to ZooKeeper failed")
        rate = told["requests"] / told["microseconds"] * 1e6
        return Measured(rate, told["p50"] / 1000, told["p99"] / 1000, used / told["requests"] * 1e6)


@contextlib.contextmanager
def zookeeper(directory: Path, population: Population, connections: int) -> Iterator[ZooKeeper]:
    """Run a server, and so many sessions with it, until the end of the block.

    Raises:
        RuntimeError: it does not start.
    """
    port, log = free_port(), directory / "zookeeper.log"
    configuration, lines = directory / "zoo.cfg", directory / "zookeeper-nodes"
    configuration.write_text(_CONFIGURATION.format(directory=directory, port=port))
    with lines.open("w") as out:
        for number in range(population.begin, population.begin + population.count):
            out.write(f"/{population.service(number)}/{address(number)}\t{json.dumps(registration(number))}\n")
    server = java_programs.command(java_programs.ZOOKEEPER, _SERVER, _QUIET)
    client = java_programs.command(java_programs.ZOOKEEPER, _CLIENT, _QUIET)
    with running([*server, str(configuration)], log=log) as process:
        eventually(
            lambda: process.poll() is not None or _accepts(port), within=_START_TIMEOUT, said=lambda: end_of(log)
        )
        if process.poll() is not None:
            raise RuntimeError(f"ZooKeeper does not start: {end_of(log)}")
        with Commands.running([*client, str(port), str(connections), str(lines)]) as (_, commands):
            commands.read()
            yield ZooKeeper(process.pid, commands)


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
