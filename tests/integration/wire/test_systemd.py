"""Notifications to a service manager, over real datagram sockets."""

import contextlib
import socket
import threading
import uuid
from pathlib import Path

import pytest

from wire.sd_notify import notify


def listening(address: str) -> socket.socket:
    """Return a datagram socket as systemd would hold it."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(address)
    manager.settimeout(5)
    return manager


def test_a_message_reaches_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each notification is one datagram."""
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with listening(path) as manager:
        assert notify("READY=1")
        assert notify("STATUS=Größe")
        assert [manager.recv(64), manager.recv(64)] == [b"READY=1", "STATUS=Größe".encode()]


def test_an_abstract_name_starts_with_an_at_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names without a file are written with @ in the environment and with NUL in the address."""
    name = f"headcount-{uuid.uuid4().hex}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with listening(f"\0{name}") as manager:
        assert notify("WATCHDOG=1")
        assert manager.recv(64) == b"WATCHDOG=1"


@pytest.mark.parametrize("target", ["/nowhere/notify", "@headcount-nobody", "x" * 300])
def test_a_manager_that_went_away_harms_nobody(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that nobody listens on, or that is none, is answered with False."""
    monkeypatch.setenv("NOTIFY_SOCKET", target)
    assert not notify("READY=1")


def test_a_manager_that_hangs_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As while process 1 is frozen: a sign of life does not wait, and the rest not for long."""
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with listening(path) as manager, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"STATUS=other", path)
                sent += 1
        assert not notify("WATCHDOG=1")
        assert not notify("STOPPING=1")
        reads = threading.Timer(0.2, lambda: [manager.recv(64) for _ in range(sent)])
        reads.start()
        assert notify("READY=1")
        reads.join()
        assert manager.recv(64) == b"READY=1"
