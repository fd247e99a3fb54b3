"""The registry's log: one event per line, as JSON or, on a terminal, in columns.

The registrar writes the same lines without structlog; ``registrar.event_log`` says why.
"""

import logging
import re
import sys
from contextvars import ContextVar
from typing import TextIO

import structlog

_TOKEN = re.compile(r"(hc[tsbl]_[a-z0-9]{1,24})_[A-Za-z0-9_=-]+")

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that the current task handles, set by the HTTP front; each event logged meanwhile has it."""


def configure_logs(level: str = "info", stream: TextIO | None = None) -> None:
    """Write the records of structlog and of the standard library to ``stream``, by default stderr.

    Records of the registry are written from ``level`` up, those of libraries from WARNING up.
    """
    out = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        _add_request_id,
        _mask_tokens,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    if out.isatty():
        renderer = structlog.dev.ConsoleRenderer()
    else:
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries log each request and each job at INFO.
    root.setLevel(logging.WARNING)
    logging.getLogger("registry").setLevel(level.upper())


def without_tokens(text: str) -> str:
    """Return a text in which tokens of this registry have lost their secret part: people paste them anywhere."""
    return _TOKEN.sub(r"\1_…", text) if "hc" in text else text


def _mask_tokens(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = without_tokens(value)
    return event


def _add_request_id(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event["request_id"] = request_id
    return event
