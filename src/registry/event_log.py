"""The registry's log: one event per line, as JSON or, on a terminal, in columns.

The registrar writes the same lines without structlog; ``registrar.event_log`` says why.
"""

import logging
import sys
from contextvars import ContextVar
from typing import TextIO

import structlog

from wire.log_stream import log_stream
from wire.token_masking import without_tokens

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that the current task handles, set by the HTTP front; each event logged meanwhile has it."""


def configure_logs(level: str = "info", stream: TextIO | None = None) -> None:
    """Write the records of structlog and of the standard library to ``stream``, by default stderr.

    Records of the registry are written from ``level`` up, those of libraries from WARNING up.
    """
    out = stream or log_stream() or sys.stderr
    shared: list[structlog.typing.Processor] = [
        _add_request_id,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    if out.isatty():
        # Not structlog's own way where rich is installed, which shows the values of all variables.
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    else:
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler: logging.Handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _masked(renderer)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries log each request and each job at INFO.
    root.setLevel(logging.WARNING)
    logging.getLogger("registry").setLevel(level.upper())


def _masked(renderer: structlog.typing.Processor) -> structlog.typing.Processor:
    """Return a renderer that leaves the secrets of tokens out of the whole line, its traceback included."""

    def render(logger: object, method: str, event: structlog.typing.EventDict) -> str:
        return without_tokens(str(renderer(logger, method, event)))

    return render


def _add_request_id(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event["request_id"] = request_id
    return event
