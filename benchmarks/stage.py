"""The stage of a benchmark: PostgreSQL, registries on it, endpoints in them, and what their processes use."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
from harness.postgres import Postgres, postgres
from harness.process import eventually
from harness.registry import Registry, registry

_BATCH = 500
_LOOKS = 8
_ZONES = ("a", "b", "c")
_LONGEST_LEASE = 86_400


class Stage:
    """A PostgreSQL with one database, and a directory; both are gone at the end."""

    def __init__(self, server: Postgres, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.database = server.create_database()

    def version(self) -> str:
        """Return PostgreSQL's version, and where it came from."""
        number = self.server.execute("SHOW server_version")[0][0]
        return f"{number} ({self.server.source})"

    @contextlib.contextmanager
    def registry(self, workers: int = 1, **settings: Any) -> Iterator[Registry]:  # noqa: ANN401  # any setting
        """Run `registry serve` on the stage's database until the end of the block; all its processes are ready."""
        told: dict[str, Any] = {"log_level": "warning", "workers": workers} | settings
        with registry(self.database, self.directory, **told) as found:
            eventually(lambda: _all_ready(found, workers), within=60, said=lambda: found.log.read_text()[-2000:])
            yield found


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Set the stage; everything on it is ended and removed with the block."""
    with tempfile.TemporaryDirectory(prefix="headcount-bench-") as directory, postgres() as server:
        yield Stage(server, Path(directory))


def registration(number: int) -> dict[str, Any]:
    """Return the full document that a registrar sends for the endpoint of that number."""
    return {
        "instance_id": f"i-{number:017x}",
        "incarnation": 1_700_000_000_000,
        "revision": "2025-01-31-4f2c9e1",
        "region": "eu-west-1",
        "zone": f"eu-west-1{_ZONES[number % len(_ZONES)]}",
        "ttl": _LONGEST_LEASE,
    }


def address(number: int) -> str:
    """Return the ip:port of the endpoint of that number."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:8080"


def seed(found: Registry, service: str, numbers: Iterable[int]) -> None:
    """Register endpoints as their registrars would, with the longest lease.

    Raises:
        httpx.HTTPStatusError: the registry refused them.
    """
    beats = [
        {"service": service, "endpoint": address(number), "registration": registration(number)} for number in numbers
    ]
    for at in range(0, len(beats), _BATCH):
        answer = found.client.post("/v1/heartbeats", json={"heartbeats": beats[at : at + _BATCH]})
        answer.raise_for_status()
        refused = [one["problem"] for one in answer.json()["results"] if "problem" in one]
        if refused:
            raise httpx.HTTPStatusError(f"refused: {refused[0]}", request=answer.request, response=answer)


def cpu_seconds(pid: int) -> float:
    """Return the processor time, user and system, that a process and its living descendants have used."""
    return sum(sum(process.cpu_times()[:2]) for process in _family(pid))


def memory(pid: int) -> int:
    """Return the bytes that a process and its descendants hold, shared pages counted once."""
    return sum(process.memory_full_info().pss for process in _family(pid))


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _all_ready(found: Registry, workers: int) -> bool:
    """Tell whether each process listens and is ready; the kernel spreads new connections over them."""
    listening = sum(
        one.status == psutil.CONN_LISTEN and one.laddr.port == found.port
        for process in _family(found.process.pid)
        for one in process.net_connections(kind="inet")
    )
    return listening >= workers and all(_ready(found.url) for _ in range(_LOOKS * workers))


def _ready(url: str) -> bool:
    return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
