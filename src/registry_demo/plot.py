"""What happens in the demo, from the first process to the last figure."""

import sys
from functools import partial
from pathlib import Path

from registry_demo import acts
from registry_demo.bounds import KEEP_RATE, REGION, STARTED
from registry_demo.errors import BrokenError
from registry_demo.measure import at_least, exactly
from registry_demo.play import Play
from registry_demo.screen import Screen
from registry_demo.stage import Stage

_ZONES = {"a": f"{REGION}a", "b": f"{REGION}c", "c": f"{REGION}a"}
# Three joined, one failed and came back, one drained and left, one joined; Envoy may learn two at once.
_UPDATES = 5


async def start(stage: Stage, screen: Screen, version: str) -> None:
    """Start the registry, Envoy, three apps and their registrars, and say where they are."""
    screen.doing("starting the registry and its PostgreSQL")
    registry = await stage.start_registry()
    screen.doing(f"starting Envoy {version}")
    envoy = await stage.start_envoy()
    for name, zone in _ZONES.items():
        screen.doing(f"starting app {name} and its registrar")
        await stage.start_shop(name, zone)
    here = "127.0.0.1"
    rows = [
        (
            "registry",
            f"{here}:{stage.ports.registry}",
            f"pid {registry.pid}",
            "with its own PostgreSQL",
        ),
        (
            "envoy",
            f"{here}:{stage.ports.listener}",
            f"pid {envoy.pid}",
            f"{version}, polls by REST EDS v3",
        ),
    ]
    rows += [
        (
            f"app {shop.name}",
            shop.endpoint,
            f"pid {shop.app.pid}",
            f"{shop.zone}, registrar pid {shop.registrar.pid}",
        )
        for shop in stage.shops.values()
    ]
    screen.cast("Headcount, live on this machine", rows)


async def listed(play: Play) -> None:
    """Wait until Envoy uses all that were started.

    Raises:
        BrokenError: one of them is not there in time.
    """
    play.screen.doing("waiting until Envoy knows all three")
    for shop in play.stage.shops.values():
        if await play.until(partial(play.admin.first, shop.endpoint, {"HEALTHY"}, 0.0), STARTED) is None:
            raise BrokenError(f"Envoy does not know {shop.name} after {STARTED:.0f} s", shop.registrar)


async def perform(play: Play) -> None:
    """Play the acts and show what was measured."""
    shops = play.stage.shops
    await acts.spread(play)
    await acts.kill(play, shops["b"])
    await acts.drain(play, shops["c"])
    await acts.join(play, "d")
    await _count_updates(play)
    play.screen.doing("the story has been told")
    play.screen.table(play.measures)
    for suspect in dict.fromkeys(measure.suspect for measure in play.measures if not measure.kept):
        play.screen.log(suspect)


def linger(play: Play) -> None:
    """Say what can be looked at while everything is left running."""
    play.traffic.rate = KEEP_RATE
    ports = play.stage.ports
    registry = f"http://127.0.0.1:{ports.registry}"
    play.screen.doing(f"everything is kept running, with {KEEP_RATE:.0f} requests/s; Ctrl-C ends it")
    victim = play.stage.shops["a"]
    admin = f"http://127.0.0.1:{ports.admin}"
    rows = [
        ("console", f"{registry}/ui", "services, Envoys, events: who is out, and why"),
        ("API", f"{registry}/docs", ""),
        ("Envoy", f"http://127.0.0.1:{ports.listener}/work", "one request through Envoy"),
        ("Envoy admin", f"{admin}/clusters", "what Envoy knows"),
    ]
    play.screen.cast("Kept running until Ctrl-C", rows)
    ctl = _registryctl()
    commands = [
        (f"export REGISTRYCTL_URL={registry}", ""),
        (f"{ctl} check --envoy {admin}", "is all well?"),
        (f"kill -9 {victim.app.pid}", f"app {victim.name}; its registrar goes on"),
        (f"{ctl} explain shop {victim.endpoint}", "why does it get no traffic?"),
        (f"{ctl} drain shop {play.stage.shops['b'].endpoint} --reason trying --for 10m", "watch it leave"),
        (f"{ctl} subscribers", "has Envoy heard of it?"),
    ]
    play.screen.commands("To try in another terminal, in this directory", commands)


def _registryctl() -> str:
    """Return the command as it can be called from here, also where no environment is active."""
    found = Path(sys.executable).with_name("registryctl")
    return str(found.relative_to(Path.cwd())) if found.is_relative_to(Path.cwd()) else str(found)


async def _count_updates(play: Play) -> None:
    envoy = play.stage.envoy
    if envoy is None:
        return
    play.screen.act(5, "Envoy", "what it says about the registry's answers")
    counters = await play.admin.counters()
    play.keep(exactly("Envoy: update_rejected", counters["update_rejected"], 0, envoy))
    play.keep(exactly("Envoy: update_failure", counters["update_failure"], 0, envoy))
    play.keep(at_least("Envoy: update_success", counters["update_success"], _UPDATES, envoy))
