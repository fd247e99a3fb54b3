"""DNS lies to registrars: it names dead addresses, or nothing, while the registry that answered still works."""

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from harness.figures import Figures
from harness.fleet import fleet
from harness.hosts import Hosts
from harness.process import eventually, free_port
from harness.registrar import registrar
from harness.registry import Registry, registry
from harness.watch import watch

pytestmark = pytest.mark.faults

_TTL = 6.0


def _healthy(found: Registry, service: str, endpoint: str) -> bool:
    return found.statuses(service) == {endpoint: "HEALTHY"}


@pytest.mark.parametrize("addresses", [{"registry_invalid": "127.0.0.9"}, {}], ids=["dead address", "no such name"])
def test_a_registrar_keeps_the_registry_that_answered(
    addresses: dict[str, str], database: str, workplace: Path, tmp_path: Path, service: str, figures: Figures
) -> None:
    """DNS turns wrong, then the registry restarts: the registrar finds it where it was, and no lease is lost."""
    hosts = Hosts(tmp_path)
    hosts.name(registry_invalid="127.0.0.1")
    listen = f"127.0.0.1:{free_port()}"
    url = f"http://registry.invalid:{listen.rpartition(':')[2]}"
    with ExitStack() as stack:
        (endpoint,) = stack.enter_context(fleet(workplace, 1))
        with registry(database, workplace, listen=listen, lease_ttl=f"{_TTL}s"):
            sidecar = stack.enter_context(registrar(workplace, url, service, endpoint, within=hosts.within))
            eventually(partial(sidecar.said, '"endpoint_published"'), within=15)
            hosts.name(**addresses)
        found = stack.enter_context(registry(database, workplace, listen=listen, lease_ttl=f"{_TTL}s"))
        seen = stack.enter_context(watch(partial(found.statuses, service)))
        took = eventually(partial(sidecar.said, '"registry_back"'), within=_TTL)
        time.sleep(2 * _TTL)
        what = "names a dead address" if addresses else "knows the name no more"
        figures.at_most("A9", f"DNS {what}, registry restarts: heartbeats again", _TTL / 2, took)
        figures.equal("A9", f"DNS {what}, registry restarts: changes", 0, len(seen.states()) - 1)
        assert _healthy(found, service, endpoint)
