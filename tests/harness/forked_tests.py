"""Tests in several processes that are forked from the one that has collected them: ``--processes 6``.

To collect 9,800 tests takes 14 s of processor time, and twice that on a fresh clone, where each file is compiled first.
So one process does it. Those that it forks share what it has imported, take one file after the other until none is
left, and send it their reports. It runs no test of its own.

All tests of a file run in one process, since they share registries. All files of the browser do, since they share
Chromium and a registry with much in it. Both end after the last of them, since a registry that nobody asks anything
takes 1.4 % of a core. A warning is an error in these tests, so none is sent.
"""

import gc
import itertools
import os
import signal
from collections.abc import Generator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest

_BROWSER = "tests/browser/"
_INDEX_BYTES = 2
"""Bytes of one record in the queue of files. The pipe takes 64 KiB before a reader is there: 32,000 files."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--processes``."""
    parser.addoption(
        "--processes",
        type=int,
        default=0,
        metavar="N",
        help="run the tests in N processes, forked after the collection",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Print no names of files before the dots: those of several files come at once."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and config.getoption("processes") > 1:
        reporter.showfspath = False


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests in several processes, where several are asked for."""
    config = session.config
    files = _by_file(session.items)
    count = min(config.getoption("processes"), len(files))
    if count < 2 or config.option.collectonly or session.testsfailed:
        return None
    _refuse_threads()
    queue = _Queue(len(files))
    # What has been imported is neither visited nor, therefore, copied by the garbage collections to come.
    gc.collect()
    gc.freeze()
    processes: list[_Process] = []
    for _ in range(count):
        reader, writer = Pipe(duplex=False)
        _flush(config)
        pid = os.fork()
        if pid == 0:
            for other in [reader, *(process.reader for process in processes)]:
                other.close()
            _become_one_of_several(config, _Sender(config, writer))
            _run(session, files, queue, writer)
            return True
        writer.close()
        processes.append(_Process(pid, reader))
    _Parent(session, files, processes).watch()
    return True


def _by_file(items: Sequence[pytest.Item]) -> list[list[pytest.Item]]:
    """Return the items of each file together, in the order of the files; the browser counts as one file."""
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(_group(item), []).append(item)
    return list(files.values())


def _group(item: pytest.Item) -> str:
    name = item.nodeid.partition("::")[0]
    return _BROWSER if name.startswith(_BROWSER) else name


def _refuse_threads() -> None:
    """End the run if the modules started threads: those are not in a fork, which would wait for them."""
    tasks = Path("/proc/self/task")
    if tasks.exists() and len(list(tasks.iterdir())) > 1:
        raise pytest.UsageError(
            "a module of the tests starts a thread when it is imported, which a fork would lack: "
            "import in the test what starts it, or run with --processes 1"
        )


def _flush(config: pytest.Config) -> None:
    """Write what is buffered, which each fork would write again."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.flush()


class _Queue:
    """The indexes of the files that nobody has taken yet.

    They stand in a pipe that all processes read: each index is read once.
    """

    def __init__(self, count: int) -> None:
        self._indexes, filled = os.pipe()
        os.write(filled, b"".join(index.to_bytes(_INDEX_BYTES, "big") for index in range(count)))
        os.close(filled)

    def take(self) -> int | None:
        """Return the next index, or None when there is none any more."""
        record = os.read(self._indexes, _INDEX_BYTES)
        return int.from_bytes(record, "big") if record else None


def _run(session: pytest.Session, files: list[list[pytest.Item]], queue: _Queue, writer: Connection) -> None:
    """Do as pytest's own loop does, with one file after the other, and tell the parent which were taken.

    The next file is taken when one is over, so that none waits behind a long test. Nobody knows it while the last test
    of a file runs, and fixtures of the session are kept until the session ends, or the files of the browser.
    """
    try:
        while (index := queue.take()) is not None:
            writer.send(("took", index))
            items = files[index]
            kept = None if _group(items[0]) == _BROWSER else session
            for item, following in itertools.pairwise([*items, kept]):
                assert isinstance(item, pytest.Item)
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
    finally:
        # Nothing interrupts the ends of the session's fixtures, which end what they have started.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _become_one_of_several(config: pytest.Config, sender: "_Sender") -> None:
    """Make a fork of this process: it prints nothing, keeps nothing for the next run, and captures on its own."""
    # Ctrl-C goes to the parent, which passes it on once; twice would interrupt the ends of fixtures.
    os.setpgid(0, 0)
    # A shell that runs the parent in the background has it ignore SIGINT, and what it forks.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.workerinput = {}  # type: ignore[attr-defined]  # by this, pytest's cache knows that it is not the parent
    plugins = config.pluginmanager
    plugins.unregister(name="terminalreporter")
    plugins.register(sender)
    capture = plugins.get_plugin("capturemanager")
    if capture is not None:
        # Its files are shared with the parent and the other forks, and so is the place where each writes next.
        capture.stop_global_capturing()
        capture.start_global_capturing()
        capture.suspend_global_capture()


class _Sender:
    """A plugin that sends the reports of a process to its parent."""

    def __init__(self, config: pytest.Config, writer: Connection) -> None:
        self._config = config
        self._writer = writer

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send a report."""
        serialized = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._writer.send(("reported", serialized))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Send that a test is over."""
        self._writer.send(("finished", nodeid))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """Send that the fixtures of the session have ended, too."""
        ended = yield
        self._writer.send(("ended", None))
        return ended


class _Process:
    """A process that runs tests, as its parent sees it.

    Attributes:
        reader: what it sends comes here, until it ends.
        pending: the tests of the files that it took and has not finished, with their locations.
        ended: whether it has ended the fixtures of its session.
    """

    def __init__(self, pid: int, reader: Connection) -> None:
        self.pid = pid
        self.reader = reader
        self.pending: dict[str, tuple[str, int | None, str]] = {}
        self.ended = False


class _Parent:
    """The process that has collected the tests, hears of all others, and reports."""

    def __init__(self, session: pytest.Session, files: list[list[pytest.Item]], processes: list[_Process]) -> None:
        self._session = session
        self._files = files
        self._running: dict[Any, _Process] = {process.reader: process for process in processes}

    def watch(self) -> None:
        """Report what the processes send, until all have ended; stop them when the session is to stop."""
        session = self._session
        try:
            while self._running and not (session.shouldfail or session.shouldstop):
                self._hear()
        finally:
            self._stop()
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)

    def _hear(self) -> None:
        for reader in wait(list(self._running)):
            process = self._running[reader]
            try:
                subject, content = process.reader.recv()
            except EOFError:
                self._close(process)
            else:
                getattr(self, f"_{subject}")(process, content)

    def _took(self, process: _Process, index: int) -> None:
        process.pending |= {item.nodeid: item.location for item in self._files[index]}

    def _reported(self, process: _Process, serialized: dict[str, Any]) -> None:
        hook = self._session.config.hook
        report = hook.pytest_report_from_serializable(config=self._session.config, data=serialized)
        hook.pytest_runtest_logreport(report=report)

    def _finished(self, process: _Process, nodeid: str) -> None:
        process.pending.pop(nodeid, None)

    def _ended(self, process: _Process, _: None) -> None:
        process.ended = True

    def _close(self, process: _Process) -> None:
        """Take note that a process ended; what it took and did not finish has failed."""
        del self._running[process.reader]
        process.reader.close()
        status = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
        if process.ended and not process.pending:
            return
        unfinished = process.pending or {"the fixtures of the session": ("", None, "session")}
        for nodeid, location in unfinished.items():
            report = pytest.TestReport(
                nodeid=nodeid,
                location=location,
                keywords={},
                outcome="failed",
                longrepr=f"its process of tests ended with {_meaning(status)} before {next(iter(unfinished))} had",
                when="call",
            )
            self._session.config.hook.pytest_runtest_logreport(report=report)

    def _stop(self) -> None:
        """Interrupt the processes that still run, and wait until they have ended their fixtures."""
        for process in self._running.values():
            os.kill(process.pid, signal.SIGINT)
        for process in self._running.values():
            try:
                while True:
                    process.reader.recv()
            except EOFError:
                os.waitpid(process.pid, 0)
        self._running.clear()


def _meaning(status: int) -> str:
    """Return what an exit status says: the signal, where there was one."""
    return f"status {status}" if status >= 0 else signal.Signals(-status).name
