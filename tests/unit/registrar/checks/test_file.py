"""The maintenance file, and the check that asks nobody."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
from harness.probing import probe

from registrar.checks.check import CheckTarget
from registrar.checks.file import FileOptions
from registrar.checks.noop import NoopOptions
from registrar.checks.result import Outcome
from registrar.checks.schedule import probe_once
from registrar.duration import Duration


async def test_a_file_asks_for_maintenance_while_it_is_there(tmp_path: Path) -> None:
    """Its words are the detail; without it the check passes."""
    path = tmp_path / "maintenance"
    options = FileOptions(path=str(path))
    absent = await probe(options)
    path.write_text("disk swap, INC-17\n" + "x" * 1000)
    present = await probe(options)
    path.unlink()
    assert (absent.outcome, absent.detail) == (Outcome.PASSED, f"no {path}")
    assert present.outcome is Outcome.MAINTENANCE
    assert present.detail.startswith(f"{path} exists disk swap, INC-17 xxx")
    assert len(present.detail) < 300
    assert (await probe(options)).outcome is Outcome.PASSED


async def test_a_directory_and_an_empty_file_count(tmp_path: Path) -> None:
    """Whatever has that name is meant; a missing directory around it is no file."""
    path = tmp_path / "maintenance"
    path.mkdir()
    assert (await probe(FileOptions(path=str(path)))).outcome is Outcome.MAINTENANCE
    assert (await probe(FileOptions(path=f"{path}/no/file"))).outcome is Outcome.PASSED


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_a_file_that_cannot_be_looked_at_changes_nothing(tmp_path: Path) -> None:
    """Neither a drain nor its end may come from a wrong permission."""
    tmp_path.chmod(0)
    try:
        result = await probe(FileOptions(path=str(tmp_path / "maintenance")))
    finally:
        tmp_path.chmod(0o700)
    assert (result.outcome, "Permission denied" in result.detail) == (Outcome.UNKNOWN, True)


async def test_a_path_that_loops_changes_nothing(tmp_path: Path) -> None:
    """As above, for everybody."""
    path = tmp_path / "maintenance"
    path.symlink_to(path)
    assert (await probe(FileOptions(path=str(path)))).outcome is Outcome.UNKNOWN


async def test_a_look_that_hangs_is_not_repeated(tmp_path: Path) -> None:
    """A single thread waits for the disk, whatever the number of probes, and it does not delay the exit."""
    path = tmp_path / "maintenance"
    # To open it waits for somebody who writes.
    os.mkfifo(path)
    options = FileOptions(path=str(path), interval=Duration(1), timeout=Duration(0.05))
    check = options.check(CheckTarget("127.0.0.1", 1))
    before = set(threading.enumerate())
    results = [await probe_once(check, options) for _ in range(4)]
    assert {result.outcome for result in results} == {Outcome.UNKNOWN}
    (waiting,) = set(threading.enumerate()) - before
    assert waiting.daemon
    looking = asyncio.create_task(check.probe())
    await asyncio.sleep(0)
    await asyncio.to_thread(path.write_text, "at last")
    assert "at last" in (await asyncio.wait_for(looking, 10)).detail


async def test_noop_passes() -> None:
    """There is nobody to ask."""
    result = await probe(NoopOptions())
    assert (result.outcome, result.detail) == (Outcome.PASSED, "not checked")
