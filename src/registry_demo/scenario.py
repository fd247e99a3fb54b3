"""Scenario of the demo, from the first process to the last figure."""

import sys
from functools import partial
from pathlib import Path

from registry_demo import acts
from registry_demo.access import DemoAccess
from registry_demo.bounds import KEEP_RATE, REGION, STARTED
from registry_demo.demo_run import DemoRun
from registry_demo.errors import BrokenError
from registry_demo.measure import at_least, exactly
from registry_demo.mesh_act import mesh
from registry_demo.processes import DemoProcesses
from registry_demo.screen import DemoScreen
from registry_demo.shift_act import MAP_PAGE, shift

_ZONES = {"a": f"{REGION}a", "b": f"{REGION}c", "c": f"{REGION}a"}
# Three joined, one failed and came back, one drained and left, one joined; Envoy may learn two at once.
_UPDATES = 5


async def start(processes: DemoProcesses, screen: DemoScreen, version: str) -> None:
    """Start the registry, Envoy, three apps and their registrars, and print their addresses."""
    screen.progress("starting the registry and its PostgreSQL")
    registry = await processes.start_registry()
    screen.progress("making the tokens of registrars, Envoy and operator")
    access = await processes.create_tokens()
    screen.progress(f"starting Envoy {version}")
    envoy = await processes.start_envoy()
    for name, zone in _ZONES.items():
        screen.progress(f"starting app {name} and its registrar")
        await processes.start_instance(name, zone)
    await processes.start_envoy_registrar()
    here = "127.0.0.1"
    rows = [
        (
            "registry",
            f"{here}:{processes.ports.registry}",
            f"pid {registry.pid}",
            "with its own PostgreSQL, access on",
        ),
        (
            "envoy",
            f"{here}:{processes.ports.listener}",
            f"pid {envoy.pid}",
            f"{version}, polls by REST EDS v3",
        ),
    ]
    rows += [
        (
            f"app {instance.name}",
            instance.endpoint,
            f"pid {instance.app.pid}",
            f"{instance.zone}, registrar pid {instance.registrar.pid}",
        )
        for instance in processes.instances.values()
    ]
    screen.overview("Headcount, live on this machine", rows)
    await _show_sign_in(processes, access, screen)


async def _show_sign_in(processes: DemoProcesses, access: DemoAccess, screen: DemoScreen) -> None:
    link = _at_registry(processes, await access.sign_in_link())
    screen.commands("Console; the link signs one browser in, within a minute", [(link, "")])


def _at_registry(processes: DemoProcesses, path: str) -> str:
    return f"http://127.0.0.1:{processes.ports.registry}{path}"


async def wait_until_listed(run: DemoRun) -> None:
    """Wait until Envoy uses every app that was started.

    Raises:
        BrokenError: an app is not used in time.
    """
    run.screen.progress("waiting until Envoy knows all three")
    for instance in run.processes.instances.values():
        if await run.until(partial(run.watcher.first, instance.endpoint, {"HEALTHY"}, 0.0), STARTED) is None:
            raise BrokenError(f"Envoy does not know {instance.name} after {STARTED:.0f} s", instance.registrar)


async def play_acts(run: DemoRun) -> None:
    """Play the acts and print the measures."""
    instances = run.processes.instances
    await acts.spread(run)
    await acts.kill(run, instances["b"])
    await acts.drain(run, instances["c"])
    await acts.join(run, "d")
    await _count_updates(run)
    await acts.refuse(run)
    await mesh(run, instances["d"])
    await shift(run)
    run.screen.progress("the last act is over")
    run.screen.table(run.measures)
    for suspect in dict.fromkeys(measure.suspect for measure in run.measures if not measure.kept):
        run.screen.log(suspect)


async def keep_running(run: DemoRun) -> None:
    """Print what to look at while everything is left running."""
    run.traffic.rate = KEEP_RATE
    processes = run.processes
    ports, access = processes.ports, processes.access
    if access is None:
        raise RuntimeError("the tokens are made before the first act")
    registry = _at_registry(processes, "")
    run.screen.progress(f"everything is kept running, with {KEEP_RATE:.0f} requests/s; Ctrl-C ends it")
    victim = processes.instances["a"]
    admin = f"http://127.0.0.1:{ports.admin}"
    rows = [
        ("console", f"{registry}/ui", "services, Envoys, events: who is out, and why"),
        ("map", f"{registry}{MAP_PAGE}", "who calls whom, and which pair fails"),
        ("API", f"{registry}/docs", ""),
        ("Envoy", f"http://127.0.0.1:{ports.listener}/work", "one request through Envoy"),
        ("Envoy admin", f"{admin}/clusters", "what Envoy knows"),
    ]
    run.screen.overview("Kept running until Ctrl-C", rows)
    await _show_sign_in(processes, access, run.screen)
    ctl = _registryctl()
    commands = [
        (f"export REGISTRYCTL_URL={registry} REGISTRYCTL_TOKEN_FILE={access.operator_file}", ""),
        (f"{ctl} check --envoy {admin}", "is all well?"),
        (f"kill -9 {victim.app.pid}", f"app {victim.name}; its registrar goes on"),
        (f"{ctl} explain shop {victim.endpoint}", "why does it get no traffic?"),
        (f"{ctl} drain shop {run.processes.instances['b'].endpoint} --reason trying --for 10m", "watch it leave"),
        (f"{ctl} subscribers", "has Envoy heard of it?"),
        (f"{ctl} stat", "which pair of caller and service fails?"),
        (f"{ctl} tap front --config-id shop-bare --percent 10 --for 10s", "single requests, without secrets"),
    ]
    later = [(f"cat {access.operator_file}", f"paste it at {registry}/ui/login")]
    run.screen.commands("To sign in later", later)
    run.screen.commands("To try in another terminal, in this directory", commands)


def _registryctl() -> str:
    """Return the command as it can be called from here, also where no environment is active."""
    path = Path(sys.executable).with_name("registryctl")
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


async def _count_updates(run: DemoRun) -> None:
    envoy = run.processes.envoy
    if envoy is None:
        return
    run.screen.act(5, "Envoy", "what it says about the registry's answers")
    counters = await run.watcher.counters()
    run.record(exactly("Envoy: update_rejected", counters["update_rejected"], 0, envoy))
    run.record(exactly("Envoy: update_failure", counters["update_failure"], 0, envoy))
    run.record(at_least("Envoy: update_success", counters["update_success"], _UPDATES, envoy))
