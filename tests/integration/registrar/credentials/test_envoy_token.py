"""The file with the token of the Envoy beside the registrar: its mode, its replacement, and writes that fail."""

import asyncio
import json
import math
import os
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from registrar.credentials import envoy_token
from registrar.credentials.envoy_token import EnvoyTokenFile
from registrar.credentials.session import SessionToken
from wire.envoy_token import SDS_FILE, TOKEN_FILE, token_sds


class Source:
    """The newest token, which a test changes."""

    def __init__(self) -> None:
        self.token: SessionToken | None = None

    def issue(self, text: str) -> None:
        """Let there be a new token."""
        self.token = SessionToken(text, math.inf)

    def __call__(self) -> SessionToken | None:
        """Return it."""
        return self.token


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds."""
    monkeypatch.setattr(envoy_token, "_LOOK_INTERVAL", 0.02)
    monkeypatch.setattr(envoy_token, "_BACKOFF_BASE", 0.01)
    monkeypatch.setattr(envoy_token, "_MAX_BACKOFF", 0.02)


@asynccontextmanager
async def kept(path: Path, source: Source) -> AsyncIterator[EnvoyTokenFile]:
    """A file that is kept up to date for the length of the block."""
    file = EnvoyTokenFile(path, source)
    task = asyncio.create_task(file.run())
    try:
        yield file
    finally:
        task.cancel()
        # The thread goes on, and would meet what the next test does to the disk.
        await asyncio.wait({task, file._writing} if file._writing else {task})


async def holds(path: Path, text: str) -> None:
    """Wait until a file has a text."""
    async with asyncio.timeout(5):
        while not path.exists() or path.read_text() != text:
            await asyncio.sleep(0.005)


async def test_the_document_is_there_before_the_token(tmp_path: Path) -> None:
    """Envoy ends without its SDS document, and rejects one whose file is missing; the token may come later."""
    source = Source()
    async with kept(tmp_path / TOKEN_FILE, source) as file:
        await holds(tmp_path / SDS_FILE, f"{token_sds(str(tmp_path))}\n")
        assert (tmp_path / TOKEN_FILE).read_text() == ""
        source.issue("hcs_1")
        file.wake.set()
        await holds(tmp_path / TOKEN_FILE, "hcs_1")
    assert json.loads((tmp_path / SDS_FILE).read_text())


async def test_another_name_is_in_the_document(tmp_path: Path) -> None:
    """The document names the file of the setting."""
    async with kept(tmp_path / "shop-token", Source()):
        await holds(tmp_path / SDS_FILE, token_sds(str(tmp_path), "shop-token") + "\n")


async def test_an_operators_document_stays(tmp_path: Path) -> None:
    """Whatever is in it."""
    (tmp_path / SDS_FILE).write_text("{}")
    source = Source()
    source.issue("hcs_1")
    async with kept(tmp_path / TOKEN_FILE, source):
        await holds(tmp_path / TOKEN_FILE, "hcs_1")
    assert (tmp_path / SDS_FILE).read_text() == "{}"


@pytest.mark.parametrize("umask", [0o000, 0o077])
async def test_a_group_reads_the_files_and_nobody_else_writes(tmp_path: Path, umask: int) -> None:
    """Under any umask; the token has no line end, which would be part of a header."""
    before = os.umask(umask)
    try:
        source = Source()
        source.issue("hcs_1")
        async with kept(tmp_path / TOKEN_FILE, source):
            await holds(tmp_path / TOKEN_FILE, "hcs_1")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {TOKEN_FILE: 0o640, SDS_FILE: 0o640}


async def test_each_token_is_a_rename(tmp_path: Path) -> None:
    """A reader never sees half of one, nor none; a renewal wakes the writer."""
    path, source = tmp_path / TOKEN_FILE, Source()
    tokens = [f"hcs_{number}" * 50 for number in range(20)]
    source.issue(tokens[0])
    seen: set[str] = set()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(path.read_text())

    async with kept(path, source) as file:
        await holds(path, tokens[0])
        reader = threading.Thread(target=read)
        reader.start()
        try:
            for token in tokens[1:]:
                source.issue(token)
                file.wake.set()
                await holds(path, token)
        finally:
            over.set()
            reader.join()
    assert seen <= set(tokens)


@pytest.mark.parametrize("trouble", ["removed", "truncated", "opened"])
async def test_what_somebody_does_to_the_file_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    """A file that is removed, emptied, or made writable for the group is written again, and that is said."""
    path, source = tmp_path / TOKEN_FILE, Source()
    source.issue("hcs_1")
    async with kept(path, source):
        await holds(path, "hcs_1")
        if trouble == "removed":
            path.unlink()
        elif trouble == "truncated":
            path.write_text("")
        else:
            path.chmod(0o660)
        async with asyncio.timeout(5):
            while not (path.exists() and path.read_text() == "hcs_1" and path.stat().st_mode & 0o777 == 0o640):
                await asyncio.sleep(0.005)
            # It is logged after the write.
            while "envoy_token_written_again" not in [record.getMessage() for record in caplog.records]:
                await asyncio.sleep(0.005)


async def test_a_write_that_fails_is_said_once_and_repeated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The reason is plain, no token is in it, and the file is there as soon as it can be."""
    path, source = tmp_path / "later" / TOKEN_FILE, Source()
    source.issue("hcs_s3cret")
    async with kept(path, source) as file:
        async with asyncio.timeout(5):
            while file.failures < 3:
                await asyncio.sleep(0.005)
        assert (file.problem, file.written) == ("No such file or directory", None)
        path.parent.mkdir()
        await holds(path, "hcs_s3cret")
        async with asyncio.timeout(5):
            while file.problem:
                await asyncio.sleep(0.005)
    events = [record.getMessage() for record in caplog.records]
    assert events.count("envoy_token_not_written") == 1
    assert not any("s3cret" in str(vars(record)) for record in caplog.records)


async def test_a_full_disk_leaves_the_old_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write fails beside the file, which keeps its content, and nothing is left over."""
    path, source = tmp_path / TOKEN_FILE, Source()
    source.issue("hcs_1")
    async with kept(path, source) as file:
        await holds(path, "hcs_1")

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        source.issue("hcs_2")
        file.wake.set()
        async with asyncio.timeout(5):
            while not file.failures:
                await asyncio.sleep(0.005)
        assert (path.read_text(), file.problem) == ("hcs_1", "No space left on device")
    # An attempt that was under way has ended by now.
    assert sorted(each.name for each in tmp_path.iterdir()) == [SDS_FILE, TOKEN_FILE]


async def test_a_disk_that_hangs_costs_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop goes on, the failure is shown, and the newest token is written in the end."""
    monkeypatch.setattr(envoy_token, "_WRITE_TIMEOUT", 0.05)
    path, source, answers = tmp_path / TOKEN_FILE, Source(), threading.Event()
    hang = threading.Event()
    original = os.fsync
    calls: list[int] = []

    def slow(descriptor: int) -> None:
        calls.append(descriptor)
        if not hang.is_set():
            hang.set()
            answers.wait(10)
        original(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    source.issue("hcs_1")
    async with kept(path, source) as file:
        async with asyncio.timeout(5):
            while file.failures < 3:
                await asyncio.sleep(0.005)
        assert (len(calls), "did not answer" in file.problem) == (1, True)
        source.issue("hcs_2")
        answers.set()
        await holds(path, "hcs_2")


async def test_a_link_in_the_way_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """Whoever can write in the directory leads the token nowhere else."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("untouched")
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / TOKEN_FILE).symlink_to(elsewhere)
    source = Source()
    source.issue("hcs_1")
    async with kept(directory / TOKEN_FILE, source):
        await holds(directory / TOKEN_FILE, "hcs_1")
    assert elsewhere.read_text() == "untouched"
    assert not (directory / TOKEN_FILE).is_symlink()
