"""Orphans that a registrar inherits as the first process of a container."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import psutil
import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from integration.registrar.processes import environment
from integration.registrar.test_early_signals import children, container, starting

from wire.orphans import OrphanReaper, start_child

__all__ = ["container"]

# Twenty daemons that detach as daemons do, and end some time after they were given away; then an exit status.
_DAEMONS = 20
_CHECK = (
    "import os, time\n"
    f"for _ in range({_DAEMONS}):\n"
    "    if os.fork() == 0:\n"
    "        os.setsid(); os.close(1); os.close(2)\n"
    "        time.sleep(0.5); os._exit(3)\n"
)


def zombies(pid: int) -> int:
    """Count the children of a process that have ended."""
    count = 0
    for child in children(pid):
        try:
            count += psutil.Process(child).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            continue
    return count


@pytest.mark.parametrize("verb", ["run", "exec"])
async def test_the_first_process_of_a_container_collects_orphans(
    container: tuple[str, ...], registry: FakeRegistry, app: FakeApp, tmp_path: Path, verb: str
) -> None:
    """Orphans of a check and of the app are reaped; the check passes and the app's exit status is kept."""
    config = tmp_path / "shop.yaml"
    config.write_text(
        f"services: [{{service: shop, endpoint: '127.0.0.1:{app.port}', checks: [{{type: exec, interval: 300s, "
        f"command: [{sys.executable}, -c, {json.dumps(_CHECK)}]}}]}}]\n"
    )
    environ = environment(registry, app, REGISTRAR_CONFIG=str(config))
    for name in ("SERVICE", "ENDPOINT", "CHECK_HTTP_PATH", "CHECK_INTERVAL"):
        del environ[f"REGISTRAR_{name}"]
    app_command = ("--", "sh", "-c", f"{sys.executable} -c '{_CHECK}'; sleep 9; exit 7") if verb == "exec" else ()
    command = [*container, sys.executable, "-m", "registrar.cli", verb, *app_command]
    async with starting(environ, *command) as outer, asyncio.timeout(30):
        while not (first := next(iter(children(outer.pid)), 0)) or zombies(first) < _DAEMONS:
            await asyncio.sleep(0.01)
        while zombies(first):
            await asyncio.sleep(0.05)
        if verb == "exec":
            assert await outer.wait() == 7


async def test_what_asyncio_waits_for_keeps_its_exit_status() -> None:
    """Scans in quick succession take no exit status away, of many children at once or of a stopped one."""
    orphans = OrphanReaper(0.001)
    looking = asyncio.create_task(orphans.run())
    try:
        for _ in range(5):
            own = [await start_child("sh", "-c", f"exit {status}") for status in range(1, 9)]
            assert [await process.wait() for process in own] == list(range(1, 9))
    finally:
        looking.cancel()


async def test_only_what_stays_a_zombie_is_collected() -> None:
    """A child that asyncio does not know yet may be collected by it in a moment."""
    orphans = OrphanReaper()
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    orphans.reap()
    assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    orphans.reap()
    assert not psutil.pid_exists(pid)
    process = await start_child("cat", stdin=PIPE)
    orphans.reap()
    process.kill()
    assert await process.wait() == -9
