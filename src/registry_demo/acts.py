"""Acts of the demo: traffic spreads, an app dies, an app drains, an app joins."""

import signal
from collections import Counter

from registry_demo.bounds import (
    REGION,
    REGISTRAR_EXIT,
    STOP_USING_DEAD,
    STOP_USING_DRAINED,
    USE_AGAIN,
    USE_NEW,
)
from registry_demo.demo_run import DemoRun, in_background, now
from registry_demo.measure import Measure, duration, exactly, none_lost
from registry_demo.processes import Instance
from registry_demo.traffic import Traffic

SPREAD_TIME = 5.0
"""Seconds for which the traffic over healthy apps is counted."""
WATCH_TIME = 3.0
"""Seconds for which the traffic is counted after a change."""
WARM_UP_TIME = 1.0
"""Seconds of the second load before the app is killed."""
_FLAGS = {
    "503 UF": "connection refused",
    "503 UC": "connection broken",
    "503 UH": "no healthy endpoint",
    "504 UT": "no answer in time",
}
"""Envoy's response flags, in words."""


async def spread(run: DemoRun) -> None:
    """Let the traffic run over three healthy apps."""
    run.screen.act(1, "Spread", f"{run.traffic.rate:.0f} requests/s through Envoy, three apps, two zones")
    run.screen.progress(f"counting for {SPREAD_TIME:.0f} s")
    instances = list(run.processes.instances.values())
    start = now()
    await run.pause(SPREAD_TIME)
    counts = run.traffic.since(start)
    passed = [counts[instance.endpoint].passed if instance.endpoint in counts else 0 for instance in instances]
    shares = [100 * each / max(sum(passed), 1) for each in passed]
    value = " / ".join(f"{share:.0f}" for share in shares) + " %"
    kept = all(25 <= share <= 42 for share in shares)
    names = ", ".join(instance.name for instance in instances)
    run.record(Measure(f"traffic shared by {names}", value, "25 to 42 % each", kept, instances[0].registrar))
    run.record(none_lost("in steady traffic", run.lost(start), instances[0].app))


async def kill(run: DemoRun, instance: Instance) -> None:
    """Kill the app of ``instance``, let Envoy learn it from the registry, and start the app again.

    The same load also goes through the listener of the recommended bootstrap, with its retries and its ejection.
    """
    run.screen.act(2, "Kill", f"SIGKILL to app {instance.name} (pid {instance.app.pid}), its registrar lives on")
    retried = Traffic(run.processes.ports.listener, run.traffic.rate)
    async with in_background(retried.run()):
        run.screen.progress(f"as many GETs again, by a listener with retries, for {WARM_UP_TIME:.0f} s")
        await run.pause(WARM_UP_TIME)
        run.screen.progress(f"waiting until Envoy stops using {instance.name}")
        run.processes.expect_end(instance.app)
        start = now()
        instance.app.signal(signal.SIGKILL)
        stopped = await run.unused(instance, start, STOP_USING_DEAD)
    run.record(duration(f"{instance.name} killed: unused by Envoy after", stopped, STOP_USING_DEAD, instance.registrar))
    end = now() if stopped is None else start + stopped
    _count_lost(run, instance, start, end)
    subject = f"requests lost with retries, of {retried.total(start, end):,}"
    run.record(exactly(subject, len(retried.failures(start)), 0, run.processes.envoy or instance.registrar))
    await _restart_app(run, instance)


async def drain(run: DemoRun, instance: Instance) -> None:
    """Stop ``instance`` as a deployment does: its registrar first, and its app when the registrar has gone."""
    registrar = instance.registrar
    run.screen.act(3, "Drain", f"SIGTERM to the registrar of {instance.name} (pid {registrar.pid}), its app serves on")
    run.screen.progress(f"waiting until the registrar of {instance.name} exits")
    run.processes.expect_end(registrar)
    start = now()
    registrar.signal(signal.SIGTERM)
    stopped = await run.unused(instance, start, STOP_USING_DRAINED)
    run.record(duration(f"{instance.name} drained: unused by Envoy after", stopped, STOP_USING_DRAINED, registrar))
    await _wait_for_registrar(run, instance, start)
    run.screen.progress(f"watching the traffic without {instance.name}")
    await run.pause(WATCH_TIME)
    run.record(none_lost(f"by the drain, of {run.traffic.total(start):,}", run.lost(start), registrar))


async def join(run: DemoRun, name: str) -> None:
    """Start one more app and its registrar."""
    zone = f"{REGION}c"
    run.screen.act(4, "Join", f"a fourth app, {name}, and its registrar start in {zone}")
    run.screen.progress(f"waiting for the first answer of {name} through Envoy")
    begin = now()
    instance = await run.processes.start_instance(name, zone)
    used = await run.used(instance, now(), USE_NEW)
    run.record(duration(f"{name} passes its check: used by Envoy after", used, USE_NEW, instance.registrar))
    run.screen.progress(f"watching {name} take its share")
    await run.pause(WATCH_TIME)
    run.record(none_lost("by the join", run.lost(begin), instance.app))


async def refuse(run: DemoRun) -> None:
    """Try what nobody may: to poll without a credential, and to register another service with a registrar's token."""
    processes = run.processes
    if processes.access is None or processes.registry is None:
        raise RuntimeError("the registry and the tokens are there before the first act")
    run.screen.act(6, "Access", "what the registry refuses: each program has a token for what it needs")
    stranger, thief = await processes.access.try_as_stranger(), await processes.access.try_as_thief()
    run.record(exactly("status of a poll without a credential", stranger, 401, processes.registry))
    run.record(exactly("status of a registration of web with shop's token", thief, 403, processes.registry))


def _count_lost(run: DemoRun, instance: Instance, start: float, end: float) -> None:
    failures = run.traffic.failures(start)
    elsewhere = [failure for failure in failures if failure.endpoint != instance.endpoint]
    subject = f"requests lost without retries, of {run.traffic.total(start, end):,}"
    run.record(Measure(subject, f"{len(failures):,}", f"only at {instance.name}", not elsewhere, instance.registrar))
    kinds = Counter(_FLAGS.get(failure.failure, failure.failure) for failure in failures).most_common()
    how = ", ".join(f"{count} {kind}" for kind, count in kinds) or "none"
    run.screen.say(f"failures: {how}")


async def _restart_app(run: DemoRun, instance: Instance) -> None:
    run.screen.progress(f"starting app {instance.name} again")
    begin = now()
    await run.processes.start_app_again(instance)
    used = await run.used(instance, now(), USE_AGAIN)
    run.record(duration(f"{instance.name} passes again: used by Envoy after", used, USE_AGAIN, instance.registrar))
    run.screen.progress(f"watching {instance.name} take its share again")
    await run.pause(WATCH_TIME)
    run.record(none_lost("by its return", run.lost(begin), instance.app))


async def _wait_for_registrar(run: DemoRun, instance: Instance, start: float) -> None:
    registrar = instance.registrar
    try:
        status: int | None = await registrar.wait(REGISTRAR_EXIT)
    except TimeoutError:
        status = None
    after = None if status is None else now() - start
    run.record(duration(f"registrar of {instance.name} exited after", after, REGISTRAR_EXIT, registrar))
    value = "none" if status is None else str(status)
    run.record(Measure(f"exit status of the registrar of {instance.name}", value, "0", status == 0, registrar))
    run.screen.say(f"only now app {instance.name} is stopped")
    run.processes.expect_end(instance.app)
    await instance.app.stop(WATCH_TIME)
