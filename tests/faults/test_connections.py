"""Thousands of clients connect at once, and processes stop while they do."""

import asyncio
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.figures import Figures
from harness.line import poll
from harness.registry import Registry, registry
from harness.storm import storm

pytestmark = pytest.mark.faults

_COUNT = 5000


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process and the registry that it starts have a descriptor for each client."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _COUNT + 500
    if wanted > hard:
        pytest.skip(f"the hard limit of descriptors is {hard}, and {_COUNT:,} clients need {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _retransmitted() -> int:
    """Return how many segments this machine has sent again, SYNs among them."""
    lines = Path("/proc/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_storm_of_connects_is_answered(
    database: str, workplace: Path, service: str, figures: Figures, workers: int
) -> None:
    """5,000 Envoys connect and poll in the same moment: each is answered within 10 s, and none is reset."""
    with registry(database, workplace, workers=workers) as found:
        found.register(service, "10.0.0.1:80", ttl=600)
        again = _retransmitted()
        begun = time.monotonic()
        outcomes = asyncio.run(storm(found.port, _COUNT, poll(service)))
        took = time.monotonic() - begun
        again = _retransmitted() - again
    fault = f"{_COUNT:,} polls over connections of their own at once, {workers} worker{'s' * (workers > 1)}"
    figures.none_of("A11", f"{fault}: not answered", _COUNT - outcomes["answered"], _COUNT)
    figures.at_most("A11", f"{fault}: until the last one was answered", 10, took)
    figures.show("A11", f"{fault}: segments that the machine sent again", f"{again:,}")
    assert outcomes == {"answered": _COUNT}


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_amid_connects(database: str, workplace: Path, figures: Figures, workers: int) -> None:
    """A process that stops while 400 clients connect answers each one that it does not refuse; five times."""
    outcomes: Counter[str] = Counter()
    rounds = 5
    for _ in range(rounds):
        with registry(database, workplace, workers=workers) as found:
            outcomes += asyncio.run(_stopped(found))
    fault = f"SIGTERM amid {rounds} times 400 connects, {workers} worker{'s' * (workers > 1)}"
    lost = outcomes.total() - outcomes["answered"] - outcomes["refused"]
    figures.none_of("A11", f"{fault}: reset, or closed without an answer", lost, outcomes.total())
    figures.at_least("A11", f"{fault}: answered", 100, outcomes["answered"], "of them")
    assert set(outcomes) == {"answered", "refused"}


async def _stopped(found: Registry) -> Counter[str]:
    request = b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n"
    clients = asyncio.create_task(storm(found.port, 400, request, spread=0.2, late=0.01))
    await asyncio.sleep(0.08)
    found.process.send_signal(signal.SIGTERM)
    outcomes = await clients
    assert found.process.wait(15) == 0
    return outcomes
