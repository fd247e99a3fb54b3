"""Verbs about mesh definitions on this machine, most of which need no registry."""

from pathlib import Path
from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.session import Session

Directory = Annotated[
    Path, typer.Argument(metavar="[DIR]", help="The directory that has mesh.yaml and services/.", show_default=False)
]
From = Annotated[
    Path | None,
    typer.Option("--dir", "-d", metavar="DIR", help="By the definitions in this directory, without a registry."),
]
HERE = Path()


@verb(signs_in=False)
def init(
    session: Session,
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write.", show_default=False)] = HERE,
) -> None:
    """Write a first mesh of two services, with comments, into a directory that has no definitions yet."""
    import msgspec

    from registryctl.mesh.starter import write_starter

    written = write_starter(directory)
    if session.json:
        session.screen.document(msgspec.Raw(msgspec.json.encode({"files": [str(path) for path in written]})))
        return
    for path in written:
        session.screen.say(f"wrote {path}")
    session.screen.note(f"edit them, then: registryctl mesh validate {directory}")


@verb(signs_in=False)
def validate(
    session: Session,
    directory: Directory = HERE,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings that an edit can mend are errors.")] = False,
) -> int:
    """Check definitions, without a registry: every fault at once, with its line. Exit status 1: an error."""
    import msgspec

    from registryctl.errors import NEGATIVE
    from registryctl.mesh.definitions import check_directory, fault_document
    from registryctl.mesh.fault_lines import show_checked

    checked = check_directory(directory, strict=strict)
    if session.json:
        document = {
            "valid": checked.configuration is not None,
            "files": sorted(checked.files),
            "faults": [fault_document(fault) for fault in checked.faults],
        }
        session.screen.document(msgspec.Raw(msgspec.json.encode(document)))
    else:
        show_checked(session.screen, checked)
    return NEGATIVE if checked.configuration is None else 0


@verb()
def show(
    session: Session,
    caller: Annotated[
        str, typer.Argument(metavar="CALLER", help="A service, a gateway or an edge.", show_default=False)
    ],
    callee: Annotated[
        str | None, typer.Argument(metavar="[CALLEE]", help="One of its dependencies.", show_default=False)
    ] = None,
    directory: From = None,
) -> None:
    """Show what a caller uses; with a callee each effective value, and the line that it is from."""
    import msgspec

    from registryctl.mesh.effective_table import show_caller, show_dependency
    from registryctl.mesh.effective_view import dependency_of, effective_caller, show_gateway

    shown = effective_caller(session, caller, directory)
    if callee is not None:
        dependency = dependency_of(shown, callee)
        shown = msgspec.structs.replace(shown, dependencies=(dependency,))
    if session.json:
        session.screen.document(msgspec.Raw(msgspec.json.encode(shown)))
    elif callee is None:
        show_caller(session.screen, shown)
        if directory is None:
            show_gateway(session, shown)
    else:
        show_dependency(session.screen, shown, shown.dependencies[0])


@verb()
def diff(
    session: Session,
    before: Annotated[
        str,
        typer.Argument(
            metavar="BEFORE", help="A directory, the number of a revision, or: current.", show_default=False
        ),
    ],
    after: Annotated[
        str | None,
        typer.Argument(
            metavar="[AFTER]", help="As BEFORE. When not given: what the revision BEFORE changed.", show_default=False
        ),
    ] = None,
) -> int:
    """Compare two directories or revisions by meaning. Exit status 3: they differ."""
    from registryctl.mesh.difference_view import CHANGES, compared, show_difference

    plan = compared(session, before, after)
    show_difference(session, plan, before if after is not None else "the revision before it")
    return 0 if plan.empty else CHANGES


@verb("json", signs_in=False)
def schema(
    session: Session,
    kind: Annotated[
        str, typer.Argument(metavar="[KIND]", help="mesh, service, group, gateway or edge; all when not given.")
    ] = "",
) -> None:
    """Print the JSON Schema of definitions, for editors."""
    import msgspec

    from registryctl.mesh.schema_view import schema_of

    session.screen.document(msgspec.Raw(msgspec.json.encode(schema_of(kind))))


@verb("json")
def bootstrap(
    session: Session,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Or a gateway or an edge.", show_default=False)],
    directory: From = None,
    mount: Annotated[
        str,
        typer.Option("--mount", metavar="DIR", help="Of Envoys that read published files in this directory."),
    ] = "",
    streams: Annotated[
        list[str] | None,
        typer.Option(
            "--ads",
            metavar="HOST:PORT",
            help="Of Envoys that get everything over one stream (ADS) of this gRPC listener; repeat for several.",
        ),
    ] = None,
) -> None:
    """Print the bootstrap of a service's Envoys; `registrar bootstrap` writes what differs between its tasks."""
    import msgspec

    from registryctl.mesh.bootstrap_view import bootstrap_of

    session.screen.document(
        msgspec.Raw(msgspec.json.encode(bootstrap_of(session, service, directory, mount, streams or [])))
    )


@verb(signs_in=False)
def prove(
    session: Session,
    directory: Directory = HERE,
    envoys: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="PATH", help="An Envoy binary (envoy, on the PATH); repeat for several."),
    ] = None,
) -> int:
    """Let real Envoys validate all that definitions compile to. Exit status 1: one of them refuses something."""
    from registryctl.mesh.proving import prove_directory

    return prove_directory(session, directory, envoys or ["envoy"])


@verb()
def publish(
    session: Session,
    place: Annotated[
        str, typer.Argument(metavar="PLACE", help="A directory, or s3://bucket/prefix.", show_default=False)
    ],
    directory: Annotated[
        Path, typer.Option("--dir", "-d", metavar="DIR", help="The definitions.", show_default=False)
    ] = HERE,
    envoys: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="PATH", help="Prove it with this Envoy (envoy, on the PATH); repeat."),
    ] = None,
    unproven: Annotated[bool, typer.Option("--unproven", help="Publish it although no Envoy has proven it.")] = False,
    settle: Annotated[
        str | None, typer.Option("--settle", metavar="DURATION", help="Wait so long between two phases.")
    ] = None,
    mount: Annotated[
        str,
        typer.Option("--mount", metavar="DIR", help="Envoys read the files in this directory of their machine."),
    ] = "",
) -> int:
    """Publish what definitions compile to without a registry: as files, or to S3, in phases by time."""
    from registryctl.mesh.publishing import publish_directory
    from registryctl.settings import read_duration

    seconds = None if settle is None else read_duration(settle, "--settle")
    chosen = () if unproven else (envoys or ["envoy"])
    return publish_directory(session, directory, place, chosen, settle=seconds, mount=mount)


@verb(signs_in=False)
def import_(  # the words of the command line
    session: Session,
    source: Annotated[str, typer.Argument(metavar="FORMAT", help="kumonos, itacho or appmesh.", show_default=False)],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="The documents, or directories of them.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Write definitions here.", show_default=False)
    ] = HERE,
    service: Annotated[
        str, typer.Option("--service", metavar="NAME", help="Whose definition it is; else the file's name says it.")
    ] = "",
    accept_losses: Annotated[
        bool, typer.Option("--accept-losses", help="Write although something could not be imported.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over definitions that are there.")] = False,
) -> int:
    """Convert configuration of kumonos, itacho or AWS App Mesh. Exit status 2: something of it would be lost."""
    from registryctl.mesh.importing import import_files

    return import_files(session, source, files, service, out, accept_losses=accept_losses, force=force)
