"""What the registrar writes to stderr, which has the form of the registry's log."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from registrar import event_log
from registrar.event_log import EventLogger
from registry import event_log as registry_event_log

FIELDS: list[dict[str, Any]] = [
    {},
    {"service": "shop", "seconds": 1.5, "before": None, "endpoints": ["10.0.0.5:8080"], "healthy": True},
    {"text": 'a\n{"event":"forged"}', "value": {1}, "odd": "\ud800", "umlaut": "ü", "bytes": b"\0"},
    {"error": ValueError("broken"), "pair": ("a", 1), "map": {"a": {"b": 1}}},
]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Tell that people read along."""
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    for name in ("registry", "registrar"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def written(log: Any, configure: Callable[[str, io.StringIO], None], fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a program's log writes of one event at each level, without the times."""
    stream = io.StringIO()
    configure("info", stream)
    log.info("published", **fields)
    log.warning("published", **fields)
    log.error("published", **fields)
    try:
        int("broken")
    except ValueError:
        log.exception("published", **fields)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    for line in lines:
        assert line.pop("timestamp").endswith("Z")
    return lines


@pytest.mark.parametrize("fields", FIELDS)
def test_both_programs_write_the_same_lines(fields: dict[str, Any]) -> None:
    """Whatever reads the registry's log reads the registrar's: names, levels, values and tracebacks."""
    ours = written(EventLogger("registrar.test"), event_log.configure_logs, fields)
    theirs = written(structlog.get_logger("registry.test"), registry_event_log.configure_logs, fields)
    traces = [line.pop("exception") for line in (ours[-1], theirs[-1])]
    assert ours == theirs
    assert len(ours) == 4
    assert [trace.splitlines()[-1] for trace in traces] == [
        "ValueError: invalid literal for int() with base 10: 'broken'"
    ] * 2


@pytest.mark.parametrize("terminal", [False, True])
def test_a_token_is_in_no_line(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in a field, nor in the traceback of an error that has it in its text."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    event_log.configure_logs(stream=stream)
    token = f"hcs_{'a' * 16}_{'Secret-' * 6}s"
    try:
        int(token)
    except ValueError:
        EventLogger("registrar.test").exception("failed", header=f"Bearer {token}")
    assert "Secret-" not in stream.getvalue()
    assert stream.getvalue().count(f"hcs_{'a' * 16}_") == 2


def group() -> ExceptionGroup[Exception]:
    """Return a group of two errors, as a TaskGroup raises it."""
    errors: list[Exception] = []
    for text in ("broken", "also broken"):
        try:
            int(text)
        except ValueError as error:
            errors.append(error)
    return ExceptionGroup("tasks failed", errors)


@pytest.mark.parametrize("level", ["info", "warning", "error", "critical"])
def test_an_exception_is_written_with_its_traceback(level: str) -> None:
    """At every level, with each error of a group, as the registry's log writes it."""
    error, traces = group(), []
    for log, configure in (
        (EventLogger("registrar.test"), event_log.configure_logs),
        (structlog.get_logger("registry.test"), registry_event_log.configure_logs),
    ):
        stream = io.StringIO()
        configure("info", stream)
        getattr(log, level)("failed", exc_info=error, status=70)
        line = json.loads(stream.getvalue())
        assert (line["event"], line["level"], line["status"]) == ("failed", level, 70)
        assert "exc_info" not in line
        traces.append(line["exception"])
    assert traces[0] == traces[1]
    assert traces[0].count("ValueError: invalid literal") == 2
    assert "ExceptionGroup: tasks failed (2 sub-exceptions)" in traces[0]


def test_a_terminal_gets_the_traceback_below_the_line() -> None:
    """Its lines stand as Python prints them."""
    stream = Terminal()
    event_log.configure_logs(stream=stream)
    EventLogger("registrar.test").critical("failed", exc_info=group())
    first, *lines = stream.getvalue().splitlines()
    assert "failed" in first
    assert "exc_info" not in first
    assert lines[0] == "  | ExceptionGroup: tasks failed (2 sub-exceptions)"


def test_the_level_is_the_least_that_is_written() -> None:
    """Of the registrar's own records; libraries are heard from WARNING up, in the same form."""
    stream = io.StringIO()
    event_log.configure_logs("warning", stream)
    EventLogger("registrar.test").info("quiet")
    EventLogger("registrar.test").warning("loud")
    logging.getLogger("some.library").info("a request")
    logging.getLogger("some.library").warning("slow %s", "query")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud", "slow query"]


def test_an_event_is_not_a_format() -> None:
    """A percent sign stays what it is."""
    stream = io.StringIO()
    event_log.configure_logs(stream=stream)
    EventLogger("registrar.test").info("100 %s", reason="%d")
    assert json.loads(stream.getvalue())["event"] == "100 %s"


def test_a_terminal_gets_columns() -> None:
    """A readable line, in which a field cannot forge another."""
    stream = Terminal()
    event_log.configure_logs(stream=stream)
    EventLogger("registrar.test").info("published", service="shop", detail="a b\nc")
    (line,) = stream.getvalue().splitlines()
    assert "published" in line
    assert "service=shop detail='a b\\nc'" in line
