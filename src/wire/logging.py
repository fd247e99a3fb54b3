"""One log set-up for both programs: an event a line, JSON for machines, columns for a terminal."""

import logging
import sys
from contextvars import ContextVar
from typing import TextIO

import structlog

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being answered: each line that it leaves has it."""


def configure_logs(level: str = "info", stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records to ``stream`` (stderr), from ``level`` up.

    A terminal gets readable columns, anything else gets JSON lines.
    """
    out = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        _add_request_id,
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
    # Libraries speak of each request and each job at INFO: from them only what went wrong is of interest.
    root.setLevel(logging.WARNING)
    for ours in ("registry", "registrar", "wire"):
        logging.getLogger(ours).setLevel(level.upper())


def _add_request_id(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event["request_id"] = request_id
    return event
