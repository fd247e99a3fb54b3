"""TCP probes against real sockets, and against a network that a process makes of a TUN device."""

import asyncio
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from wire import tcp_probe
from wire.tcp_probe import probe, source_address

# Each of its ports answers the first packet of a connection in another way.
_NETWORK = """
import asyncio, fcntl, os, struct, subprocess
from wire.tcp_probe import probe

def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)

def ipv4(protocol, source, target, payload):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0, source, target)
    return head[:10] + checksum(head) + head[12:] + payload

def icmp(sender, packet, code):
    body = struct.pack("!BBHI", 3, code, 0, 0) + packet[:28]
    return ipv4(1, sender, packet[12:16], body[:2] + checksum(body) + body[4:])

def tcp(packet, sequence, flags):
    source, target = packet[12:16], packet[16:20]
    source_port, port, number = struct.unpack("!HHI", packet[20:28])
    segment = struct.pack("!HHIIBBHHH", port, source_port, sequence, number + 1, 0x50, flags, 1000, 0, 0)
    pseudo = target + source + struct.pack("!BBH", 0, 6, len(segment))
    return ipv4(6, target, source, segment[:16] + checksum(pseudo + segment) + segment[18:])

def answers(packet):
    if packet[0] >> 4 != 4 or packet[9] != 6 or packet[33] & 0x17 != 2:
        return []
    port, host, gateway = int.from_bytes(packet[22:24]), packet[16:20], bytes([10, 99, 0, 9])
    return {
        1: [tcp(packet, 0, 0x14)],
        2: [icmp(host, packet, 3)],
        3: [icmp(gateway, packet, 3)],
        4: [icmp(gateway, packet, 13)],
        5: [icmp(gateway, packet, 1)],
        6: [tcp(packet, 77, 0x12), tcp(packet, 78, 0x14)],
        7: [],
        8: [tcp(packet, 77, 0x12)],
    }[port]

async def main():
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH", b"probed", 0x1001))
    subprocess.run("ip addr add 10.99.0.1/24 dev probed && ip link set probed up", shell=True, check=True)
    def read():
        for answer in answers(os.read(device, 2000)):
            os.write(device, answer)
    asyncio.get_running_loop().add_reader(device, read)
    print(*[await probe("10.99.0.2", port, 0.3) for port in range(1, 9)])

asyncio.run(main())
"""


@contextmanager
def listening(address: str = "127.0.0.5", backlog: int = 5) -> Iterator[socket.socket]:
    """Listen on a free port."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        listener.bind((address, 0))
        listener.listen(backlog)
        yield listener


def at(listener: socket.socket) -> tuple[str, int]:
    """Return where it listens."""
    address, port = listener.getsockname()[:2]
    return str(address), int(port)


def closed_port(address: str = "127.0.0.6") -> int:
    """Return a port on which nobody listens."""
    with listening(address) as listener:
        return at(listener)[1]


async def test_a_listener_is_connected_to() -> None:
    """It reads the end of the connection, and not one byte before it."""
    with listening() as listener:
        assert await probe(*at(listener)) == "connected"
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(10) == b""


async def test_each_attempt_has_a_source_port_of_its_own() -> None:
    """A firewall that remembers one connection decides anew about the next."""
    with listening() as listener:
        ports = set()
        for _ in range(3):
            assert await probe(*at(listener)) == "connected"
            accepted, (_, port) = listener.accept()
            accepted.close()
            ports.add(port)
        assert len(ports) == 3


@pytest.mark.parametrize("address", ["127.0.0.6", "::1"])
async def test_a_closed_port_refuses(address: str) -> None:
    """On both families, unless this machine has none of the kind."""
    try:
        port = closed_port(address)
    except OSError as error:
        pytest.skip(f"no {address} here: {error}")
    assert await probe(address, port) == "refused"


async def test_a_full_backlog_times_out() -> None:
    """An app that accepts nothing any more is not refusing."""
    with listening(backlog=0) as listener, socket.create_connection(listener.getsockname()):
        assert await probe(*at(listener), 0.2) == "timed_out"


async def test_no_descriptor_shows_nothing() -> None:
    """A process that has no descriptor left learns nothing about others."""
    port, limits = closed_port(), resource.getrlimit(resource.RLIMIT_NOFILE)
    await probe("127.0.0.6", port)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert await probe("127.0.0.6", port) == "nothing"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_no_route_shows_nothing() -> None:
    """Nor does an address that cannot be connected to."""
    assert await probe("255.255.255.255", 1) == "nothing"


async def test_a_connection_with_itself_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A free port of this machine may become the source port of the attempt, which then answers itself."""
    port = closed_port("127.0.0.1")
    opened = tcp_probe._socket

    def bound(address: str) -> socket.socket:
        attempt = opened(address)
        attempt.bind((address, port))
        return attempt

    monkeypatch.setattr(tcp_probe, "_socket", bound)
    assert await probe("127.0.0.1", port) == "nothing"


async def test_a_time_out_of_a_stopped_process_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It did not wait for an answer, it was away."""
    loop, later = asyncio.get_running_loop(), 0.0

    async def late(_attempt: socket.socket, _seconds: float) -> bool:
        nonlocal later
        later = 60.0
        return False

    with listening(backlog=0) as listener, socket.create_connection(listener.getsockname()):
        monkeypatch.setattr(tcp_probe, "_writable", late)
        usual = loop.time
        monkeypatch.setattr(loop, "time", lambda: usual() + later)
        assert await probe(*at(listener), 0.2) == "nothing"


async def test_probes_leave_no_descriptor() -> None:
    """Whatever came of them, and also when one is cancelled."""
    with listening(backlog=0) as listener, socket.create_connection(listener.getsockname()):
        before = socket.socket()
        number = before.fileno()
        before.close()
        for address, port in (at(listener), ("127.0.0.6", closed_port()), ("255.255.255.255", 1)):
            await probe(address, port, 0.05)
        cancelled = asyncio.create_task(probe(*at(listener)))
        await asyncio.sleep(0)
        cancelled.cancel()
        with suppress(asyncio.CancelledError):
            await cancelled
        with socket.socket() as after:
            assert after.fileno() == number


def test_the_address_that_one_connects_from() -> None:
    """Without a packet; None for an address to which there is no way."""
    assert source_address("127.0.0.5") == "127.0.0.1"
    assert source_address("255.255.255.255") is None


def test_icmp_is_not_a_refusal() -> None:
    """A reset of the host refuses. ICMP, by whomever it was sent, shows nothing, and neither does a late reset."""
    command = ["unshare", "--user", "--map-root-user", "--net"]
    able = subprocess.run(
        [*command, "ip", "tuntap", "add", "dev", "probed", "mode", "tun"], capture_output=True, text=True, check=False
    )
    if able.returncode:
        pytest.skip(f"no network namespace with a TUN device can be made here: {able.stderr.strip()}")
    done = subprocess.run(
        [*command, sys.executable, "-c", _NETWORK], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.split() == [
        "refused",
        "nothing",
        "nothing",
        "nothing",
        "nothing",
        "nothing",
        "timed_out",
        "connected",
    ]
