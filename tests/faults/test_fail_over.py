"""PostgreSQL fails over to a standby that has not heard of the last commits, and whose clock is wrong."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from harness.cluster import Cluster, cluster
from harness.envoy import Envoy, envoy
from harness.faketime import Clock, faked
from harness.figures import Figures
from harness.fleet import fleet
from harness.process import eventually
from harness.proxy import proxy
from harness.registrar import registrar
from harness.registry import Registry, registry

pytestmark = pytest.mark.faults

_TTL = 4.0

Content = frozenset[tuple[str, int | None, str]]


def _at(url: str, port: int) -> str:
    """Return the URL of a database at another port."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"postgres@127.0.0.1:{port}"))


@contextlib.contextmanager
def _primary() -> Iterator[Cluster]:
    """Run one of the test's own: it does not come back."""
    with cluster() as found:
        yield found


class Versions:
    """What each version that any registry answered stood for."""

    def __init__(self) -> None:
        self.seen: defaultdict[tuple[str, str], set[Content]] = defaultdict(set)

    def look(self, service: str, *registries: Registry) -> set[tuple[str, Content]]:
        """Poll each of the registries once; return what they answered."""
        answers = set()
        for found in registries:
            answer = found.poll(service).json()
            answers.add((answer["version_info"], _content(answer)))
        for version, content in answers:
            self.seen[service, version].add(content)
        return answers

    def agree(self, service: str, *registries: Registry) -> bool:
        """Tell whether all of the registries answer the same."""
        return len(self.look(service, *registries)) == 1

    def of_two_contents(self) -> list[str]:
        """Return the versions that stood for more than one."""
        return [f"{service} {version}" for (service, version), found in self.seen.items() if len(found) > 1]


def _content(answer: Any) -> Content:
    members = [
        member
        for resource in answer["resources"]
        for locality in resource["endpoints"]
        for member in locality["lb_endpoints"]
    ]
    return frozenset(
        (
            "{address}:{port_value}".format(**member["endpoint"]["address"]["socket_address"]),
            member.get("load_balancing_weight"),
            member["health_status"],
        )
        for member in members
    )


def test_no_version_means_two_contents(workplace: Path, service: str, figures: Figures) -> None:
    """Versions are lost with a primary; who served them and who never heard of them agree at the end.

    A new registry is the first to write to the new primary; those that served what was lost come one after the other.
    """
    founded, versions = f"{service}-founded", Versions()
    settings: dict[str, Any] = {"lease_ttl": "600s", "removal_delay": "60s", "database_timeout": "2s"}
    with ExitStack() as stack:
        primary = stack.enter_context(_primary())
        database = primary.create_database()
        ways = [stack.enter_context(proxy(primary.port)) for _ in range(2)]
        held, soon = (stack.enter_context(registry(_at(database, way.port), workplace, **settings)) for way in ways)
        for number in range(1, 4):
            held.register(service, f"10.0.0.{number}:80", weight=100)
        eventually(partial(versions.agree, service, held, soon), within=10)
        standby = stack.enter_context(primary.standby(primary.directory.with_name("standby")))
        kept = len(versions.seen)
        for weight in range(1, 9):
            assert held.register(service, "10.0.0.1:80", weight=weight).status_code == 200
            assert held.register(founded, "10.0.1.1:80", weight=weight).status_code == 200
            for name in (service, founded):
                eventually(partial(versions.agree, name, held, soon), within=5)
        lost = len(versions.seen) - kept
        primary.kill()
        standby.promote()
        fresh = stack.enter_context(registry(_at(database, standby.port), workplace, **settings))
        for weight in range(11, 19):
            if weight == 15:
                ways[1].target = standby.port
            assert fresh.register(service, "10.0.0.2:80", weight=weight).status_code == 200
            assert fresh.register(founded, "10.0.1.2:80", weight=weight).status_code == 200
            for name in (service, founded):
                versions.look(name, held, soon, fresh)
        ways[0].target = standby.port
        for name in (service, founded):
            eventually(partial(versions.agree, name, held, soon, fresh), within=15)
        again = len(versions.seen) - lost - kept
        assert lost >= 16
        assert again >= 16
        what = f"fail-over: of {lost} versions that it lost and {again} that came after it, those with two contents"
        figures.equal("12", what, [], versions.of_two_contents())
        assert held.register(service, "10.0.0.3:80", weight=7).status_code == 200
        eventually(partial(versions.agree, service, held, soon, fresh), within=5)


@pytest.mark.parametrize("offset", [300, -300])
def test_a_standby_with_a_wrong_clock_expires_nobody(
    offset: int, workplace: Path, service: str, figures: Figures
) -> None:
    """What it has not heard of is back within a heartbeat's interval, nobody lapses, and who dies later does."""
    clock = Clock(workplace / f"clock{offset}")
    clock.path.chmod(0o644)
    settings: dict[str, Any] = {"lease_ttl": f"{_TTL}s", "removal_delay": "2s", "database_timeout": "2s"}
    with ExitStack() as stack:
        primary = stack.enter_context(_primary())
        database = primary.create_database()
        way = stack.enter_context(proxy(primary.port))
        found = stack.enter_context(registry(_at(database, way.port), workplace, **settings))
        endpoints = stack.enter_context(fleet(workplace, 6))
        agents = [stack.enter_context(registrar(workplace, found.url, service, one)) for one in endpoints[:5]]
        gateway = stack.enter_context(envoy(workplace, [found.port], [service]))
        eventually(partial(_in_envoy, gateway, service, 5), within=20)
        directory = primary.directory.with_name("standby")
        standby = stack.enter_context(primary.standby(directory, _readable(clock, primary.directory.parent)))
        stack.enter_context(registrar(workplace, found.url, service, endpoints[5]))
        eventually(partial(_in_envoy, gateway, service, 6), within=10)
        clock.jump(offset)
        primary.kill()
        standby.promote()
        wrong = float(standby.execute("SELECT extract(epoch FROM clock_timestamp())")[0][0]) - time.time()
        assert abs(wrong - offset) < 5
        way.target = standby.port
        at = time.monotonic()
        eventually(lambda: endpoints[5] in _stored(standby, database, service), within=20)
        figures.at_most(
            "12", f"fail-over, clock {offset:+} s: a lost registration is stored again", _TTL + 4, time.monotonic() - at
        )
        time.sleep(2 * _TTL)
        events = found.client.get(f"/v1/events?service={service}").json()["events"]
        kinds = sorted({event["kind"] for event in events})
        figures.equal("12", f"fail-over, clock {offset:+} s: kinds of events in two leases", ["registered"], kinds)
        assert found.statuses(service) == dict.fromkeys(endpoints, "HEALTHY")
        agents[0].kill()
        gone = eventually(lambda: found.statuses(service).get(endpoints[0]) != "HEALTHY", within=20)
        figures.at_most("12", f"fail-over, clock {offset:+} s: a host lost after it, lease of 4 s", _TTL + 2, gone)


def _in_envoy(found: Envoy, service: str, count: int) -> bool:
    return list(found.hosts(service).values()) == ["HEALTHY"] * count


def _stored(server: Cluster, database: str, service: str) -> set[str]:
    statement = "SELECT host(address) || ':' || port AS place FROM endpoints WHERE service = $1 AND removed_at IS NULL"
    return {row["place"] for row in server.execute(statement, service, url=_at(database, server.port))}


def _readable(clock: Clock, directory: Path) -> dict[str, str]:
    """Move a clock to where the server's user may read it; return the environment that goes by it."""
    clock.path = directory / clock.path.name
    clock.jump(0)
    return faked(clock)
