"""Act of the demo about mesh configuration: applied, switched under load, refused by its line, and an app killed."""

import signal

from registry_demo.bounds import REGION, STOP_USING_DEAD
from registry_demo.demo_run import DemoRun, in_background, now
from registry_demo.errors import BrokenError
from registry_demo.free_ports import free_ports
from registry_demo.measure import Measure, duration, exactly, none_lost
from registry_demo.mesh import DemoMesh, MeshPorts
from registry_demo.process import Process
from registry_demo.processes import Instance
from registry_demo.traffic import Traffic

_ALL = "{prefix: /}"
_SWITCHED = "{prefix: /, split: {shop-next: 100}}"
_MISSPELT = "{prefix: /, timout: 3s}"
_SWITCH_TIME = 20.0
"""Seconds that a switch may take: the new cluster is warmed before the first request goes to it."""
_WATCH_TIME = 2.0
"""Seconds for which the traffic is counted before and after a change."""
_MAX_SHOWN = 5
"""Lost requests that are told one by one."""


async def mesh(run: DemoRun, victim: Instance) -> None:
    """Let a second service call the first one through generated configuration, and change it under load."""
    run.screen.act(7, "Mesh", "web calls shop by generated clusters and routes, from three small files")
    processes = run.processes
    definitions = _definitions(run)
    run.screen.progress("starting shop-next and its registrar, and applying the definitions")
    following = await processes.start_instance_of("shop-next", "next", f"{REGION}a")
    definitions.write(_ALL)
    applied = await definitions.apply("web calls shop")
    if applied.status:
        raise BrokenError(f"registryctl mesh apply failed: {applied.output}", following.registrar)
    run.screen.progress("starting the Envoy of web, which gets everything over one gRPC stream (ADS)")
    envoy = await processes.start_mesh_envoy(
        await definitions.bootstrap(), await definitions.overlay(), definitions.ports.admin
    )
    traffic = Traffic(definitions.ports.egress, run.traffic.rate, authority="shop")
    async with in_background(traffic.run()):
        await run.pause(_WATCH_TIME)
        await _kill(run, traffic, victim, envoy)
        await _switch(run, traffic, definitions, following)
        await _mistake(run, traffic, definitions)
    processes.expect_end(envoy)


def _definitions(run: DemoRun) -> DemoMesh:
    processes = run.processes
    if processes.access is None or processes.registry is None:
        raise RuntimeError("the registry and the tokens are there before the first act")
    return DemoMesh(
        processes.directory,
        processes.token_directory,
        processes.access,
        processes.registry,
        processes.ports.registry,
        processes.ports.streams,
        MeshPorts(*free_ports(2)),
    )


async def _kill(run: DemoRun, traffic: Traffic, victim: Instance, envoy: Process) -> None:
    run.screen.progress(f"killing app {victim.name} once more, under the generated defaults")
    run.processes.expect_end(victim.app)
    start = now()
    victim.app.signal(signal.SIGKILL)
    stopped = await run.unused(victim, start, STOP_USING_DEAD)
    end = now() if stopped is None else start + stopped
    failures = traffic.failures(start)
    subject = f"GETs lost by a kill with the generated defaults, of {traffic.total(start, end):,}"
    # The access log of this Envoy says why: its response flags, and how often it tried.
    run.record(exactly(subject, len(failures), 0, envoy))
    for failure in failures[:_MAX_SHOWN]:
        run.screen.say(
            f"lost {failure.sent - start:.2f} s after the kill, over at {failure.done - start:.2f} s: {failure.failure}"
        )
    await run.processes.start_app_again(victim)


async def _switch(run: DemoRun, traffic: Traffic, definitions: DemoMesh, following: Instance) -> None:
    run.screen.progress("switching the route from shop to shop-next")
    start = now()
    definitions.write(_SWITCHED)
    applied = await definitions.apply("shop-next takes over")
    if applied.status:
        raise BrokenError(f"registryctl mesh apply failed: {applied.output}", following.registrar)
    used = await run.until(lambda: traffic.first_passed(following.name, start), _SWITCH_TIME)
    after = None if used is None else used - start
    run.record(duration("route switched: shop-next used after", after, _SWITCH_TIME, following.registrar))
    await run.pause(_WATCH_TIME)
    total = traffic.total(start)
    run.record(none_lost(f"by the switch, of {total:,}", len(traffic.failures(start)), following.registrar))


async def _mistake(run: DemoRun, traffic: Traffic, definitions: DemoMesh) -> None:
    run.screen.progress("applying a definition with a misspelt field")
    start = now()
    definitions.write(_MISSPELT)
    refused = await definitions.apply("a mistake")
    line = next((each for each in refused.output.splitlines() if "timout" in each), "")
    run.screen.say(line or refused.output)
    kept = refused.status != 0 and "services/web.yaml:5" in line
    value = "refused at its line" if kept else f"status {refused.status}"
    suspect = run.processes.registry or run.processes.instances["a"].registrar
    run.record(Measure("a definition with a misspelt field", value, "refused at its line", kept, suspect))
    run.record(none_lost("by the refused one", len(traffic.failures(start)), suspect))
