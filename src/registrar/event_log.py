"""The registrar's log: an event and its fields a line, as JSON for machines and in columns for a terminal.

Lines have the form of the registry's log, which structlog writes. The registrar does without it, because importing
structlog imports rich and pygments wherever they are installed, which is 7 MiB of memory beside each app.
"""

import datetime as dt
import json
import logging
import sys
from typing import TextIO

from wire.log_stream import log_stream
from wire.token_masking import without_tokens

_COLOURS = {"info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
_BOLD, _DIM, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"


class EventLogger:
    """Writes events with fields to the standard library's logger of a module.

    Every level takes the exception that the event is about as ``exc_info``, and writes its traceback.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, *, exc_info: BaseException | None = None, **fields: object) -> None:
        """Write an event of normal operation."""
        self._write(logging.INFO, event, fields, exc_info)

    def warning(self, event: str, *, exc_info: BaseException | None = None, **fields: object) -> None:
        """Write an event that an operator may have to look at."""
        self._write(logging.WARNING, event, fields, exc_info)

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: object) -> None:
        """Write an event that an operator has to act on."""
        self._write(logging.ERROR, event, fields, exc_info)

    def critical(self, event: str, *, exc_info: BaseException | None = None, **fields: object) -> None:
        """Write an event after which the process cannot go on."""
        self._write(logging.CRITICAL, event, fields, exc_info)

    def exception(self, event: str, **fields: object) -> None:
        """Write an event with the traceback of the exception that is being handled."""
        self._write(logging.ERROR, event, fields, sys.exc_info()[1])

    def _write(self, level: int, event: str, fields: dict[str, object], exc_info: BaseException | None) -> None:
        self._logger.log(level, event, exc_info=exc_info, extra={"fields": fields})


def configure_logs(level: str = "info", stream: TextIO | None = None) -> None:
    """Send the records of all loggers to ``stream`` (stderr), and the registrar's own from ``level`` up."""
    out = stream or log_stream() or sys.stderr
    handler: logging.Handler = logging.StreamHandler(out)
    handler.setFormatter(_Columns() if out.isatty() else _JsonLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries write each request at INFO: only their warnings are of interest.
    root.setLevel(logging.WARNING)
    logging.getLogger("registrar").setLevel(level.upper())


class _JsonLine(logging.Formatter):
    """Formats a record as one JSON document; a traceback is a field of it."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {**_fields(record), "event": record.getMessage(), "level": record.levelname.lower()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return without_tokens(json.dumps({**fields, "timestamp": _timestamp(record)}, default=repr))


class _Columns(logging.Formatter):
    """Formats a record as time, level, event and fields; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        fields = " ".join(f"{name}={_shown(value)}" for name, value in _fields(record).items())
        coloured = f"{_COLOURS.get(level, '')}{level:<9}{_RESET}"
        line = f"{_DIM}{_timestamp(record)}{_RESET} [{coloured}] {_BOLD}{record.getMessage():<30}{_RESET} {fields}"
        return without_tokens(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields


def _shown(value: object) -> str:
    """Return a value as it is, or quoted where it has spaces or would forge a line."""
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)


def _timestamp(record: logging.LogRecord) -> str:
    return dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat().replace("+00:00", "Z")
