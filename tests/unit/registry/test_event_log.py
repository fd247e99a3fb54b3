"""What the registry writes to stderr."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from registry.event_log import configure_logs


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Tell that people read along."""
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the process's logging as it was found."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    logging.getLogger("registry").setLevel(logging.NOTSET)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return what was logged, each line as its own JSON document."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_machines_get_an_event_a_line() -> None:
    """Not a terminal: JSON with event, level, time and the fields as given."""
    stream = io.StringIO()
    configure_logs(stream=stream)
    structlog.get_logger("registry.test").info("lapsed", service="shop", seconds=1.5)
    (entry,) = lines(stream)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"event": "lapsed", "level": "info", "service": "shop", "seconds": 1.5}


def test_a_field_cannot_forge_a_line() -> None:
    """Line breaks and values that are no JSON stay within their line."""
    stream = io.StringIO()
    configure_logs(stream=stream)
    structlog.get_logger("registry.test").warning("odd", text='a\n{"event":"forged"}', value={1})
    (entry,) = lines(stream)
    assert entry["text"] == 'a\n{"event":"forged"}'
    assert entry["value"] == "{1}"


def test_an_exception_is_one_line_too() -> None:
    """The traceback is a field."""
    stream = io.StringIO()
    configure_logs(stream=stream)
    try:
        int("broken")
    except ValueError:
        structlog.get_logger("registry.test").exception("failed")
    (entry,) = lines(stream)
    assert entry["level"] == "error"
    assert "ValueError: invalid literal" in entry["exception"]


SECRET = f"hct_{'a' * 16}_{'Secret-' * 6}s"


class Unprintable:
    """A value that is written by its repr."""

    def __repr__(self) -> str:
        """Show what it has."""
        return f"Request({SECRET})"


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["machine", "terminal"])
def test_a_token_is_in_no_line(stream: io.StringIO) -> None:
    """Not in a field of any type, nor in a traceback, a name of a field or a record of a library."""
    configure_logs(stream=stream)
    log = structlog.get_logger("registry.test")
    event = f"paths {SECRET}"
    log.warning(event, text=SECRET, nested={"a": [SECRET]}, value=Unprintable(), **{SECRET: 1})
    for logger in (log, logging.getLogger("some.library")):
        try:
            try:
                int(SECRET)
            except ValueError as error:
                raise RuntimeError(SECRET) from error
        except RuntimeError:
            logger.exception("failed")
    written = stream.getvalue()
    assert "Secret-" not in written
    assert written.count(f"hct_{'a' * 16}_") >= 9
    assert "RuntimeError" in written


def test_the_level_is_the_least_that_is_written() -> None:
    """Of the registry's own records, what is below the level stays out."""
    stream = io.StringIO()
    configure_logs("warning", stream)
    log = structlog.get_logger("registry.test")
    log.info("quiet")
    log.warning("loud")
    assert [entry["event"] for entry in lines(stream)] == ["loud"]


def test_libraries_speak_only_of_trouble() -> None:
    """The standard library's records come in the same form, from WARNING up, also at level debug."""
    stream = io.StringIO()
    configure_logs("debug", stream)
    logging.getLogger("some.library").info("a request")
    logging.getLogger("some.library").warning("slow %s", "query")
    logging.getLogger("registry.part").debug("seen")
    assert [(entry["event"], entry["level"]) for entry in lines(stream)] == [
        ("slow query", "warning"),
        ("seen", "debug"),
    ]


def test_a_second_set_up_replaces_the_first() -> None:
    """No record is written twice."""
    first, second = io.StringIO(), io.StringIO()
    configure_logs(stream=first)
    configure_logs(stream=second)
    logging.getLogger("registry.test").info("once")
    assert (first.getvalue(), len(lines(second))) == ("", 1)


def test_people_get_columns() -> None:
    """A terminal gets a readable line, not JSON."""
    stream = Terminal()
    configure_logs(stream=stream)
    structlog.get_logger("registry.test").info("lapsed", service="shop")
    assert "lapsed" in stream.getvalue()
    assert "shop" in stream.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(stream.getvalue())
