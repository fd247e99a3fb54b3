"""Eureka, the registry of Spring Cloud: leases in memory, and answers from a cache that it renews each 30 seconds.

It has the settings that it comes with, but for three: it is its own only peer, so that it sends nothing on; a
connection may carry any number of requests; and its libraries log warnings alone.
"""

import contextlib
import http.client
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.process import eventually, free_port, running
from msgspec import Struct

from benchmarks import wrk
from benchmarks.peers import java_programs
from benchmarks.peers.side import end_of, listens
from benchmarks.population import Population
from benchmarks.stage import address, registration

NAME = "Eureka"
_MAIN = "headcount.eureka.Server"
_START_TIMEOUT = 120.0
"""Seconds; on a busy machine Spring takes half a minute."""
_JSON = "application/json"


class Eureka(Struct, frozen=True):
    """A running server."""

    port: int
    pid: int
    population: Population
    directory: Path

    def register(self, numbers: Iterable[int]) -> None:
        """Register the endpoints of these numbers, one request each: it has no other way.

        Raises:
            RuntimeError: it refused one.
        """
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            for number in numbers:
                service = self.population.service(number)
                document = json.dumps({"instance": _instance(service, number)})
                connection.request("POST", f"/eureka/apps/{service}", document, {"content-type": _JSON})
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 204:
                    raise RuntimeError(f"Eureka answers {answer.status}: {text[:500]!r}")

    def listed(self, service: str) -> int:
        """Return how many endpoints of a service it tells."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", f"/eureka/apps/{service}", headers={"accept": _JSON})
            document = json.loads(connection.getresponse().read())
        return len(document["application"]["instance"])

    def read(self, service: str, connections: int, seconds: float) -> wrk.Measured | None:
        """Ask for a service, in JSON."""
        what = wrk.Gets(connections, seconds, accept=_JSON)
        return wrk.get(f"http://127.0.0.1:{self.port}/eureka/apps/{service}", [self.pid], what)

    def renew(self, connections: int, seconds: float) -> wrk.Measured | None:
        """Renew the leases of all endpoints in turn; an unknown lease would be answered by an error."""
        lines = self.directory / "eureka-renewals"
        population = self.population
        with lines.open("w") as out:
            for number in range(population.begin, population.begin + population.count):
                out.write(f"/eureka/apps/{population.service(number)}/{address(number)}?status=UP\t\n")
        return wrk.beat(f"http://127.0.0.1:{self.port}", [self.pid], wrk.Beats(lines, "PUT", connections, seconds))


@contextlib.contextmanager
def eureka(directory: Path, population: Population) -> Iterator[Eureka]:
    """Run a server until the end of the block.

    Raises:
        RuntimeError: it does not start.
    """
    port = free_port()
    log = directory / "eureka.log"
    settings = {
        "server.address": "127.0.0.1",
        "server.port": port,
        "server.tomcat.max-keep-alive-requests": -1,
        "eureka.instance.hostname": "127.0.0.1",
        "eureka.client.register-with-eureka": "false",
        "eureka.client.fetch-registry": "false",
        "eureka.client.service-url.defaultZone": f"http://127.0.0.1:{port}/eureka/",
        "logging.level.root": "warn",
        "spring.main.banner-mode": "off",
    }
    command = java_programs.command(java_programs.EUREKA, _MAIN)
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    with running([*command, *arguments], log=log, folder=directory) as process:
        eventually(lambda: process.poll() is not None or listens(port), within=_START_TIMEOUT, said=lambda: end_of(log))
        if process.poll() is not None:
            raise RuntimeError(f"Eureka does not start: {end_of(log)}")
        yield Eureka(port, process.pid, population, directory)


def _instance(service: str, number: int) -> dict[str, Any]:
    """Return an endpoint as Eureka's own client describes it, with what our registrars tell as its metadata."""
    host, _, port = address(number).rpartition(":")
    told = registration(number)
    return {
        "instanceId": address(number),
        "hostName": host,
        "app": service,
        "ipAddr": host,
        "status": "UP",
        "port": {"$": int(port), "@enabled": "true"},
        "securePort": {"$": 443, "@enabled": "false"},
        "countryId": 1,
        "vipAddress": service,
        "secureVipAddress": service,
        "homePageUrl": f"http://{host}:{port}/",
        "statusPageUrl": f"http://{host}:{port}/actuator/info",
        "healthCheckUrl": f"http://{host}:{port}/actuator/health",
        "dataCenterInfo": {
            "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
            "name": "MyOwn",
        },
        "leaseInfo": {"renewalIntervalInSecs": 30, "durationInSecs": told["ttl"]},
        "metadata": {name: str(told[name]) for name in ("instance_id", "incarnation", "revision", "region", "zone")},
    }
