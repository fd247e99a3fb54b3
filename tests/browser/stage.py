"""What there is to see in the console: a registry with a day's work, and who polls it."""

import threading
from collections.abc import Mapping
from typing import Any, Self

import httpx
import msgspec
from harness.calls import Call
from harness.no_tls import NO_TLS
from harness.postgres import Postgres
from harness.registry import Registry
from msgspec.structs import replace

from registry.core.shift import Shift
from registry.core.shift_curve import Point
from registry.core.shift_statistics import Counts

CALM: dict[str, Any] = {
    "region": "eu-central-1",
    "ttl": 3600,
    "detail": "GET /healthz: 200 in 3 ms",
    "revision": "2.14.0",
}


_NO_ENDPOINT = (0, 0, 90, 0, 0)
CALLS = [
    Call("web", "checkout", 1800, 2, bucket=28, zone="eu-central-1a"),
    Call("web", "checkout", 1750, 1, bucket=28, zone="eu-central-1b"),
    Call("web", "search", 4200, bucket=18, zone="eu-central-1a"),
    Call("web", "catalog", 6100, bucket=14, zone="eu-central-1b"),
    Call("web", "images", 9000, bucket=5, zone="eu-central-1a"),
    Call("web", "accounts", 400, bucket=22, zone="eu-central-1a"),
    Call("checkout", "payments", 240, 90, 36, (8, 0, 90, 0, 120), "eu-central-1a", 0, 3),
    Call("checkout", "cart", 900, bucket=12, zone="eu-central-1a"),
    Call("checkout", "accounts", 240, 6, 40, (6, 0, 0, 0, 0), "eu-central-1b"),
    Call("cart", "catalog", 700, bucket=15, zone="eu-central-1a"),
    Call("search", "catalog", 300, bucket=15, zone="eu-central-1a"),
    Call("batch", "accounts", 0, zone="eu-central-1b"),
]
"""What the Envoys of the stage report: one callee that fails, one that is slow, one that nobody calls any more."""


def fill(found: Registry) -> None:
    """Register what a day brings: healthy and sick services, a canary, a drain, silence."""
    _begin(found)
    for number in range(8):
        # Silent from now on: some lapse, the guard keeps the others.
        found.register("fleet", f"10.0.50.{number + 1}:7000", **(CALM | {"zone": "eu-central-1c", "ttl": 1}))
    found.register("batch", "10.0.60.1:7000", **CALM)
    found.client.delete("/v1/services/batch/endpoints/10.0.60.1:7000")
    _checkout(found, 4, health="DEGRADED", detail="GET /healthz: 200, x-degraded: cache cold")
    for number in range(3):
        sick = {"health": "UNHEALTHY", "detail": "GET /healthz: 503 in 12 ms", "zone": "eu-central-1a"}
        found.register("payments", f"10.0.40.{number + 1}:8443", **(CALM | sick))
    drain = {"drain": True, "reason": "disk errors, ticket 4711", "expires_in": 3600}
    path = "/v1/services/checkout/endpoints/10.0.1.5:8080/override"
    found.client.put(path, json=drain, headers={"x-actor": "ann"})
    refused = "GET /healthz: connection refused, 4 times in a row"
    _checkout(found, 3, health="UNHEALTHY", detail=refused)
    _checkout(found, 3)
    _checkout(found, 3, health="UNHEALTHY", detail=refused)


def shift(found: Registry, server: Postgres, database: str, *, served: bool = False) -> None:
    """Begin a shift that has come to its second step, and was paused; its group fails a little more than the rest.

    The group is still served the share of its first step, as when a registry of a version before sets it, unless
    ``served``.
    """
    plan = {"to": "zone=eu-central-1a", "steps": [5, 25, 50, 100], "reason": "try the new network of zone a"}
    found.client.post("/v1/services/search/shift", json=plan).raise_for_status()
    _order(found, "pause")
    _store_counts(server, database)
    if served:
        # Resumed, the step begins anew with its share.
        _order(found, "resume")
        _order(found, "pause")
        _store_counts(server, database)


def _order(found: Registry, order: str) -> None:
    found.client.post(f"/v1/services/search/shift/{order}", json={"reason": "lunch"}).raise_for_status()


def _store_counts(server: Postgres, database: str) -> None:
    (row,) = server.execute("SELECT shift FROM shifts WHERE service = 'search'", url=database)
    stored = msgspec.json.decode(row["shift"], type=Shift)
    curve = tuple(
        Point(10.0 * n, 5.0 if n < 30 else 25.0, Counts(40 * n % 97 + 60, n % 3), Counts(900, 2 + n % 2))
        for n in range(1, 46)
    )
    known = replace(
        stored, step=1, age=450.0, waited=150.0, group=Counts(1500, 16), rest=Counts(13_500, 37), curve=curve
    )
    server.execute("UPDATE shifts SET shift = $1", msgspec.json.encode(known).decode(), url=database)


def _begin(found: Registry) -> None:
    for number in range(1, 6):
        _checkout(found, number)
    for name, size in (("cart", 4), ("catalog", 8), ("search", 12), ("images", 3), ("accounts", 5)):
        for number in range(size):
            zone = f"eu-central-1{'abc'[number % 3]}"
            found.register(name, f"10.0.{size}.{number + 10}:9000", **CALM, zone=zone)
    _checkout(found, 6, canary=True, revision="2.15.0-rc1", weight=1, metadata={"stage": "blue", "shard": 3})
    for number in range(3):
        found.register("payments", f"10.0.40.{number + 1}:8443", **(CALM | {"zone": "eu-central-1a"}))


def _checkout(found: Registry, number: int, **told: Any) -> None:
    about = {"zone": f"eu-central-1{'ab'[number % 2]}", "weight": 10, "instance_id": f"ecs-task-9f{number}c04"}
    found.register("checkout", f"10.0.1.{number}:8080", **(CALM | about | told))


class Envoys(threading.Thread):
    """Who polls: one that keeps up, one that rejects every answer and so brings its old version, and passers-by.

    Args:
        url: the registry.
        passing: services, and the name of who polls each without ever taking an answer.
    """

    def __init__(self, url: str, passing: Mapping[str, str] | None = None) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._passing = passing or {}
        self._over = threading.Event()

    def run(self) -> None:
        """Poll until told to end."""
        held = stuck = ""
        with httpx.Client(base_url=self._url, timeout=10, trust_env=False, verify=NO_TLS) as client:
            while not self._over.wait(0.4):
                held = self._poll(client, "checkout", "web-7f9c", "web", "eu-central-1a", held)
                stuck = self._poll(client, "payments", "batch-01", "batch", "eu-central-1b", stuck)
                stuck = stuck.partition(":")[0] + ":1"
                for service, name in self._passing.items():
                    self._poll(client, service, name, name, name, "")

    def _poll(self, client: httpx.Client, service: str, node: str, cluster: str, zone: str, version: str) -> str:
        said = {"version_info": version} if version else {}
        about = {"id": node, "cluster": cluster, "locality": {"zone": zone}}
        answer = client.post("/v3/discovery:endpoints", json=said | {"node": about, "resource_names": [service]})
        return str(answer.json()["version_info"]) if answer.status_code == 200 else version

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self.join(10)
