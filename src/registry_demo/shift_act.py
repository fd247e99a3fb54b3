"""Act of the demo about a canary that fails half of its requests: the registry takes it back by itself."""

from registry_demo.bounds import REGION, TAKE_BACK, USE_NEW
from registry_demo.demo_run import SETTLE_TIME, DemoRun, in_background, now
from registry_demo.errors import BrokenError
from registry_demo.measure import Measure, duration, exactly
from registry_demo.operator_commands import OperatorCommands
from registry_demo.processes import Instance
from registry_demo.traffic import Traffic

MAP_PAGE = "/ui/traffic"
"""Path of the console's page with the map of who calls whom."""
_REVISION = "next"
_ERRORS = 0.5
_STEPS = "10,50,100"
_WATCH_TIME = 2.0
"""Seconds for which the traffic is counted after the canary was taken back."""
_MAX_LOST_PART = 0.001
"""The part of the users' requests that may fail, with retries."""
_ABORTED = 1
"""Exit status of `registryctl shift --wait` for a shift that was aborted."""


async def shift(run: DemoRun) -> None:
    """Begin a shift to a canary that fails, and see who notices: the registry does, and users do not."""
    run.screen.act(8, "Shift", "a new revision gets 10, 50, 100 % of the requests; half of its answers are errors")
    processes = run.processes
    if processes.access is None or processes.registry is None:
        raise BrokenError("the registry and the tokens are there before the first act", processes.instances["a"].app)
    commands = OperatorCommands(processes.directory, processes.access, processes.registry, processes.ports.registry)
    # Without a share it would get a fair part of the requests as soon as it is registered.
    await commands.run(["registryctl", "share", "shop", f"revision={_REVISION}=0", "--reason", "not yet"])
    canary = await processes.start_canary(_REVISION, f"{REGION}a", _ERRORS)
    run.screen.progress("waiting until Envoy knows the canary, which gets nothing yet")
    await run.until(lambda: run.watcher.first(canary.endpoint, {"DRAINING"}, 0.0), USE_NEW)
    users = Traffic(processes.ports.listener, run.traffic.rate)
    async with in_background(users.run()):
        await _take_back(run, commands, canary, users)


async def _take_back(run: DemoRun, commands: OperatorCommands, canary: Instance, users: Traffic) -> None:
    run.screen.progress(f"registryctl shift shop --to revision={_REVISION} --steps {_STEPS} --every 20s --wait")
    run.screen.say(f"the console's map of who calls whom: http://127.0.0.1:{run.processes.ports.registry}{MAP_PAGE}")
    start = now()
    words = ["--to", f"revision={_REVISION}", "--steps", _STEPS, "--every", "20s", "--reason", "release next"]
    finished = await commands.run(["registryctl", "shift", "shop", *words, "--wait", "--for", "40s"])
    aborted = now() - start if finished.status == _ABORTED else None
    run.screen.say(finished.output.splitlines()[-1] if finished.output else f"status {finished.status}")
    run.record(duration("the canary with 50 % errors: taken back after", aborted, TAKE_BACK, canary.registrar))
    await run.until(lambda: run.watcher.first(canary.endpoint, {"DRAINING"}, start), TAKE_BACK)
    await run.pause(SETTLE_TIME)
    settled = now()
    await run.pause(_WATCH_TIME)
    bare = run.traffic.failures(start)
    run.screen.say(f"its errors reach {len(bare)} of {run.traffic.total(start):,} requests that are not retried")
    lost, total = len(users.failures(start)), users.total(start)
    bound = max(3, int(total * _MAX_LOST_PART))
    subject = f"requests that users lost by it, with retries, of {total:,}"
    run.record(Measure(subject, f"{lost:,}", f"≤ {bound}", lost <= bound, canary.registrar))
    count = run.traffic.since(settled).get(canary.endpoint)
    left = 0 if count is None else count.passed + count.failed
    run.record(exactly("requests to it after that", left, 0, canary.registrar))
