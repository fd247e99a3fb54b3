"""One log set-up for both programs: an event a line, JSON for machines, columns for a terminal."""

import logging
import sys
from typing import TextIO

import structlog


def configure_logs(level: str = "info", stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records to ``stream`` (stderr), from ``level`` up.

    A terminal gets readable columns, anything else gets JSON lines.
    """
    out = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
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
    # Once a second while PostgreSQL is slow; what is slow is said by those who wait for it.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    for ours in ("registry", "registrar", "wire"):
        logging.getLogger(ours).setLevel(level.upper())
