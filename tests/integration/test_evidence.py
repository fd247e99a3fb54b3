"""Evidence about suspects, from real connections and statements to what Envoys are told."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.event_log import was_logged
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

_SAID = (
    "INSERT INTO probe_statements SELECT prober, id, incarnation, probers.address, $1, clock_timestamp(),"
    " clock_timestamp() - interval '4 min', 3, '' FROM endpoints,"
    " (VALUES ('a', '10.9.0.4'), ('b', '10.9.2.9')) AS probers (prober, address) WHERE suspect_since IS NOT NULL"
)
"""The statement of two registry processes about all suspects, in one transaction: one alone would be weak evidence."""


@contextmanager
def _listening(addresses: Sequence[str]) -> Iterator[dict[str, socket.socket]]:
    """Listen at addresses of loopback, each a host of its own, by ``ip:port``."""
    with ExitStack() as stack:
        listeners = {}
        for address in addresses:
            listener = stack.enter_context(socket.socket())
            listener.bind((address, 0))
            listener.listen(100)
            listeners[f"{address}:{listener.getsockname()[1]}"] = listener
        yield listeners


def _reasons(found: Registry, service: str, kind: str) -> list[str]:
    events = found.client.get(f"/v1/events?service={service}").json()["events"]
    return [event["reason"] for event in events if event["kind"] == kind]


def _because(found: Registry, service: str, endpoint: str) -> str:
    explained = found.client.get(f"/v1/services/{service}/endpoints/{endpoint}/explain").json()
    return "; ".join(explained["because"])


def test_a_process_finds_dead_endpoints_by_itself(database: str, workplace: Path, service: str) -> None:
    """Of ten endpoints five fall silent. The guard lets one lapse; a registry that is refused lets four lapse.

    The one that can still be connected to is held, and its explanation says so.
    """
    often = {"sweep_interval": "100ms", "resync_interval": "200ms"}
    options = {"endpoint_networks": "127.0.0.0/8", "probes": "on", "removal_delay": "60s"} | often
    hosts = [f"127.0.3.{number}" for number in range(1, 11)]
    with registry(database, workplace, **options) as found, _listening(hosts) as listeners:
        names = list(listeners)
        for name in names:
            assert found.register(service, name, ttl=60).status_code < 300
        eventually(lambda: found.client.get("/v1/state").json()["probes"]["reached"] == 10, within=5)
        dead, alive = names[:4], names[4]
        for name in dead:
            listeners[name].close()
            found.register(service, name, ttl=1)
        found.register(service, alive, ttl=1.5)
        eventually(lambda: list(found.statuses(service).values()).count("TIMEOUT") == 4, within=10)
        statuses = found.statuses(service)
        assert [name for name, status in statuses.items() if status == "TIMEOUT"] == sorted(dead)
        assert (
            sum("refused 3 × by 127.0.0.1, which reached it" in said for said in _reasons(found, service, "lapsed"))
            == 3
        )
        eventually(lambda: "evidence that it lives: 127.0.0.1 connected" in _because(found, service, alive), within=5)
        metrics = found.client.get("/metrics").text
        assert 'registry_leases_lapsed_by_evidence_total{evidence="weak"} 3.0' in metrics
        assert 'registry_probes_total{outcome="connected",purpose="base_line"} 10.0' in metrics
        accepted = []
        listeners[alive].setblocking(False)
        for _ in range(50):
            try:
                accepted.append(listeners[alive].accept()[0])
            except BlockingIOError:
                break
        assert [connection.recv(1) for connection in accepted] == [b""] * len(accepted)
        for connection in accepted:
            connection.close()


def test_two_that_are_refused_let_half_of_a_service_lapse(
    server: Postgres, database: str, workplace: Path, service: str
) -> None:
    """Ten fall silent, and two probers on two addresses are refused by all: five lapse within the window."""
    with registry(database, workplace, sweep_interval="100ms", removal_delay="60s") as found:
        for number in range(10):
            found.register(service, f"10.0.0.{number + 1}:80", ttl=1)
        eventually(lambda: "registry_suspects 9.0" in found.client.get("/metrics").text, within=8)
        server.execute(_SAID, "unreachable", url=database)
        time.sleep(0.5)
        assert list(found.statuses(service).values()).count("TIMEOUT") == 1
        server.execute("DELETE FROM probe_statements", url=database)
        server.execute(_SAID, "refused", url=database)
        eventually(lambda: list(found.statuses(service).values()).count("TIMEOUT") == 5, within=5)
        time.sleep(0.5)
        assert list(found.statuses(service).values()).count("HEALTHY") == 5
        words = "refused 3 × by 10.9.0.4 and 10.9.2.9, which reached it 4 min ago"
        assert sum(words in reason for reason in _reasons(found, service, "lapsed")) == 4
        held = next(name for name, status in found.statuses(service).items() if status == "HEALTHY")
        assert f"strong evidence that it is dead: {words}" in _because(found, service, held)


def test_statements_that_cannot_be_read_are_no_evidence(
    server: Postgres, database: str, workplace: Path, service: str
) -> None:
    """A lock on their table, or none at all: the guard decides as ever, and no sweep fails or is late."""
    with registry(database, workplace, sweep_interval="100ms", removal_delay="60s") as found:
        with server.holding("LOCK TABLE probe_statements", url=database):
            for number in range(10):
                found.register(service, f"10.0.0.{number + 1}:80", ttl=1)
            eventually(lambda: "registry_suspects 9.0" in found.client.get("/metrics").text, within=8)
            eventually(lambda: was_logged("evidence_not_read", found.log), within=3)
        server.execute("DROP TABLE probe_statements", url=database)
        found.register(service, "10.0.0.99:80", ttl=1)
        eventually(lambda: "registry_suspects 10.0" in found.client.get("/metrics").text, within=5)
        assert found.log.read_text().count("evidence_not_read") == 1
        assert not was_logged("leases_credited", found.log)
