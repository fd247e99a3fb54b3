"""Machines of a test's own: network namespaces behind a router, on addresses that nobody else can reach.

Each machine has a network of its own, 10.77.N.0/24, and one cable to the router, which is a namespace too. Nothing of
it is visible outside, and all of it ends with the processes that hold it. A test moves its own thread into one of them
by ``inside``; what it starts there, processes and threads, is there as well.
"""

import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.process import end

_CLONE_NEWNET = 0x40000000


class Machine:
    """A network namespace that a process holds.

    Attributes:
        number: its place.
        address: its address, which the other machines reach.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.address = f"10.77.{number}.2"
        self.process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._wait()

    @property
    def within(self) -> tuple[str, ...]:
        """The command that executes the one behind it there."""
        return "nsenter", f"--net=/proc/{self.process.pid}/ns/net"

    def run(self, *command: str) -> None:
        """Run a command there."""
        subprocess.run([*self.within, *command], check=True, capture_output=True)

    def _wait(self) -> None:
        own = Path("/proc/self/ns/net").readlink()
        deadline = time.monotonic() + 5
        while Path(f"/proc/{self.process.pid}/ns/net").readlink() == own:
            assert time.monotonic() < deadline, "no network namespace"
            time.sleep(0.01)


class Network:
    """Some machines behind one router."""

    def __init__(self, router: Machine, machines: list[Machine]) -> None:
        self._router = router
        self.machines = machines

    def vanish(self, machine: Machine) -> None:
        """Cut a machine off; what is sent to it is dropped without a word, as in a VPC."""
        self._router.run("ip", "link", "delete", f"to{machine.number}")
        self._router.run("ip", "route", "add", "blackhole", f"10.77.{machine.number}.0/24")


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """Run so many machines for the length of the block; skip the test where they cannot be made."""
    with contextlib.ExitStack() as stack:
        try:
            router = stack.enter_context(_machine(0))
            router.run("sh", "-c", "ip link set lo up && echo 1 > /proc/sys/net/ipv4/ip_forward")
            machines = [stack.enter_context(_machine(number)) for number in range(1, count + 1)]
            for machine in machines:
                _connect(router, machine)
        except (OSError, AssertionError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"") or str(error).encode()
            pytest.skip(f"network namespaces cannot be made here: {said.decode(errors='replace').strip()}")
        yield Network(router, machines)


@contextlib.contextmanager
def _machine(number: int) -> Iterator[Machine]:
    machine = Machine(number)
    try:
        yield machine
    finally:
        end(machine.process)


def _connect(router: Machine, machine: Machine) -> None:
    cable, gateway = f"to{machine.number}", f"10.77.{machine.number}.1"
    router.run("ip", "link", "add", cable, "type", "veth", "peer", "eth0", "netns", str(machine.process.pid))
    router.run("ip", "address", "add", f"{gateway}/24", "dev", cable)
    router.run("ip", "link", "set", cable, "up")
    steps = (
        "ip link set lo up",
        f"ip address add {machine.address}/24 dev eth0",
        "ip link set eth0 up",
        f"ip route add default via {gateway}",
    )
    machine.run("sh", "-c", " && ".join(steps))


@contextlib.contextmanager
def inside(machine: Machine) -> Iterator[None]:
    """Move this thread into a machine for the length of the block."""
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{machine.process.pid}/ns/net", os.O_RDONLY)
    try:
        _enter(libc, there)
        try:
            yield
        finally:
            _enter(libc, outside)
    finally:
        os.close(there)
        os.close(outside)


def _enter(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "the thread cannot be moved into the network namespace")
