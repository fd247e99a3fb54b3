"""The `registry` command. Each verb imports what it needs when it runs, so that `--help` answers at once."""

import gc
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from wire.standard_files import open_missing_files

if TYPE_CHECKING:
    from registry.settings import Settings

main = typer.Typer(
    name="registry",
    help="Headcount's registry: the service registry for Envoy on ECS and VMs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"registry {version('headcount')}")
        raise typer.Exit


@main.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Headcount's registry: the service registry for Envoy on ECS and VMs."""
    open_missing_files()


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Import in three quarters of the time: what modules allocate stays, and is never searched for garbage."""
    gc.disable()
    try:
        yield
    finally:
        # Otherwise the next object that is made has the collector search all of these, for a tenth of a second.
        gc.freeze()
        gc.enable()


@contextmanager
def _without(*packages: str) -> Iterator[None]:
    """Do without packages that libraries take wherever they are installed, and use for nothing here.

    For rich, which structlog imports, that saves 65 ms and 4 MiB; for pydantic.v1, by which FastAPI looks for models of
    the former pydantic whenever it makes a route, 35 ms and 3 MiB.
    """
    before = {package: sys.modules[package] for package in packages if package in sys.modules}
    # As Python documents it: the import fails.
    sys.modules.update(dict.fromkeys(packages))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for package in packages:
            del sys.modules[package]
        sys.modules.update(before)


@main.command()
def serve() -> None:
    """Serve until SIGTERM; REGISTRY_* in the environment are the settings (docs/reference/settings.md)."""
    with _without_garbage_collection(), _without("rich"):
        from registry.event_log import configure_logs  # noqa: PLC0415
        from registry.settings import load_settings  # noqa: PLC0415
        from registry.worker_metrics import worker_metrics  # noqa: PLC0415

    _exit_at_stop_signals()
    # Also an error in the settings must not wait for a reader of the log.
    configure_logs()
    with _errors_as_lines():
        settings = load_settings()
        configure_logs(settings.log_level)
        with worker_metrics(settings), _without("pydantic.v1"):
            with _without_garbage_collection():
                from registry.embedded_postgresql import database_url  # noqa: PLC0415
                from registry.store.migration import check_database  # noqa: PLC0415
                from registry.workers import serve as serve_until_stopped  # noqa: PLC0415

            with database_url(settings) as url:
                check_database(url, settings.database_timeout)
                raise typer.Exit(serve_until_stopped(settings, url, embedded=not _names_database(settings)))


@main.command(hidden=True)
def worker(alive: int, living: int) -> None:
    """Serve as a worker that a supervisor has started, in place of some that ended."""
    from registry.supervisor import name_process  # noqa: PLC0415

    name_process()
    with _without_garbage_collection(), _without("rich", "pydantic.v1"):
        from registry.embedded_postgresql import database_url  # noqa: PLC0415
        from registry.event_log import configure_logs  # noqa: PLC0415
        from registry.settings import load_settings  # noqa: PLC0415
        from registry.workers import serve_as_worker  # noqa: PLC0415

    _exit_at_stop_signals()
    configure_logs()
    with _errors_as_lines(), _without("pydantic.v1"):
        settings = load_settings()
        configure_logs(settings.log_level)
        with database_url(settings) as url:
            raise typer.Exit(serve_as_worker(settings, url, alive, living))


@main.command()
def migrate(
    check: Annotated[
        bool,
        typer.Option("--check", help="Change nothing; exit 1 unless a registry can start on the database."),
    ] = False,
    sql: Annotated[
        bool, typer.Option("--sql", help="Change nothing; print the SQL that would be run, for psql.")
    ] = False,
) -> None:
    """Bring the schema of the database up to this program's, and exit."""
    with _without_garbage_collection():
        from registry.embedded_postgresql import database_url  # noqa: PLC0415
        from registry.event_log import configure_logs  # noqa: PLC0415
        from registry.settings import load_settings  # noqa: PLC0415
        from registry.store.migration import migrate_now, migration_sql  # noqa: PLC0415
        from registry.store.schema_check import check_schema  # noqa: PLC0415

    if check and sql:
        typer.echo("registry: --check and --sql are two questions; ask one", err=True)
        raise typer.Exit(2)
    _exit_at_stop_signals()
    with _errors_as_lines():
        settings = load_settings()
        configure_logs(settings.log_level)
        if check or sql:
            _require_database(settings)
        with database_url(settings) as url:
            if sql:
                typer.echo(migration_sql(url, settings.database_timeout), nl=False)
            elif check:
                schema = check_schema(url, settings.database_timeout)
                typer.echo(schema.line)
                raise typer.Exit(0 if schema.fits else 1)
            else:
                migrate_now(url, settings.database_timeout)


@main.command()
def restored() -> None:
    """Give a restored database a new id, so that no version of before means one of after.

    A restored dump is noticed without it; a disk, a volume or an instance from a snapshot is not.
    """
    with _without_garbage_collection():
        from registry.embedded_postgresql import database_url  # noqa: PLC0415
        from registry.event_log import configure_logs  # noqa: PLC0415
        from registry.settings import load_settings  # noqa: PLC0415
        from registry.store.restored import renew_identity_now  # noqa: PLC0415

    _exit_at_stop_signals()
    with _errors_as_lines():
        settings = load_settings()
        configure_logs(settings.log_level)
        _require_database(settings)
        with database_url(settings) as url:
            renew_identity_now(url, settings.database_timeout)


@main.command()
def publish(
    to: Annotated[str, typer.Option("--to", help="Where to: the absolute path of a directory, or s3://bucket/prefix.")],
) -> None:
    """Publish the endpoints of all services once, and exit; REGISTRY_PUBLISH_TO has the registry do it all the time.

    An edge without a cache (REGISTRAR_EDGE_FALLBACK) reads them while every registry is away, and so may an Envoy.
    """
    with _without_garbage_collection():
        from registry.embedded_postgresql import database_url  # noqa: PLC0415
        from registry.event_log import configure_logs  # noqa: PLC0415
        from registry.publish_once import publish_once  # noqa: PLC0415
        from registry.settings import load_settings  # noqa: PLC0415

    _exit_at_stop_signals()
    with _errors_as_lines():
        settings = load_settings()
        configure_logs(settings.log_level)
        _require_database(settings)
        with database_url(settings) as url:
            failing = publish_once(settings, url, to)
    for service, reason in sorted(failing.items()):
        typer.echo(f"registry: {service} is not published: {reason}", err=True)
    raise typer.Exit(1 if failing else 0)


token = typer.Typer(name="token", help="Manage credentials on this machine, without one.", no_args_is_help=True)
main.add_typer(token)


@token.command("create")
def create_token(
    admin: Annotated[bool, typer.Option("--admin", help="Allow everything, on every service.")] = False,
    name: Annotated[str, typer.Option("--name", help="Its name, as the history has it.")] = "admin",
    ttl: Annotated[str, typer.Option("--ttl", help="For how long it is good, like 12h or 90d.")] = "12h",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write it to this new file, which only its owner can read.")
    ] = None,
) -> None:
    """Make the first token, with which `registryctl` makes all others. It needs REGISTRY_DATABASE_URL, and no server.

    Everybody who can run this on the database can do everything anyway.
    """
    with _without_garbage_collection():
        from registry.embedded_postgresql import database_url  # noqa: PLC0415
        from registry.settings import load_settings  # noqa: PLC0415
        from registry.usecases.first_token import create_first_token, write_secret  # noqa: PLC0415

    if not admin:
        typer.echo("registry: only --admin tokens are made here; make others by `registryctl token create`", err=True)
        raise typer.Exit(2)
    _exit_at_stop_signals()
    with _errors_as_lines():
        settings = load_settings()
        _require_database(settings)
        with database_url(settings) as url:
            text = create_first_token(url, settings.database_timeout, name, ttl)
        if out is None:
            typer.echo(text)
        else:
            write_secret(out, text)
            typer.echo(f"wrote {out}; it is good for {ttl}", err=True)


@main.command()
def openapi(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 when the file is not what the code says.")
    ] = False,
    path: Annotated[Path, typer.Argument(help="The file.")] = Path("openapi.yaml"),
) -> None:
    """Write the API's description to openapi.yaml."""
    import yaml  # noqa: PLC0415

    from registry.app import build_app  # noqa: PLC0415

    # Through JSON, so that nothing but plain types is left, and YAML needs no anchors.
    document = json.loads(json.dumps(build_app().openapi()))
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
    if check:
        if not path.is_file() or path.read_text() != text:
            typer.echo(f"{path} is not what the code says; run `make openapi` and commit it", err=True)
            raise typer.Exit(1)
        return
    path.write_text(text)
    typer.echo(f"wrote {path}")


@main.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False,
) -> None:
    """Run the whole system on this machine, real Envoy included, and play a story with it."""
    from registry_demo.runner import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(keep=keep))


def _require_database(settings: "Settings") -> None:
    """Refuse to make an embedded PostgreSQL for a command that is about one that is there.

    Raises:
        BadSettingsError: there is none.
    """
    from registry.errors import BadSettingsError  # noqa: PLC0415

    if not _names_database(settings) and not (settings.data_dir / "postgresql").is_dir():
        raise BadSettingsError(
            f"REGISTRY_DATABASE_URL is not set, and there is no embedded PostgreSQL in {settings.data_dir}; set it "
            "as for the registry, or run this in the directory where the registry was started"
        )


def _names_database(settings: "Settings") -> bool:
    """Tell whether there is a database; otherwise the registry brings its own."""
    return settings.database_url is not None or settings.database_url_file is not None


@contextmanager
def _errors_as_lines() -> Iterator[None]:
    from registry.errors import RegistryError  # noqa: PLC0415

    try:
        yield
    except RegistryError as error:
        # With the cause and the remedy: an operator who starts a registry may see hosts and roles.
        for line in (getattr(error, "cause", "") or str(error)).splitlines():
            typer.echo(f"registry: {line}", err=True)
        raise typer.Exit(2) from None


def _exit_at_stop_signals() -> None:
    """Let every signal to stop unwind the stack, so that an embedded PostgreSQL is stopped on the way out."""

    def leave(_number: int, _frame: object) -> NoReturn:
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, leave)


if __name__ == "__main__":
    main()
