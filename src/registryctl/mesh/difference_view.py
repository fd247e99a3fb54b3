"""Comparison of directories and revisions by meaning."""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import msgspec
from msgspec import Raw, structs

from meshconfig.effective import Configuration
from meshconfig.plan import Plan
from meshconfig.planning import make_plan
from meshconfig.repository import read as read_files
from meshconfig.resource import Catalog, Snapshot
from meshconfig.snapshot import compile_mesh
from registryctl.client import read
from registryctl.errors import RejectedError, UsageError
from registryctl.mesh.definitions import Definitions, in_sources, load_directory
from registryctl.mesh.jsonnet import Evaluated, place_in_source
from registryctl.mesh.plan_text import show_plan
from registryctl.session import Session

CHANGES = 3
"""Exit status where there are differences, so that a pipeline knows whether there is something to apply."""
CURRENT = "current"
"""Names the revision that is served."""

_NUMBER = re.compile(r"[0-9]{1,18}")
_NOTHING = Definitions({}, Configuration())


def compared(session: Session, before: str, after: str | None) -> Plan:
    """Return the differences between two directories or revisions.

    Args:
        session: the session of the verb.
        before: a directory, the number of a revision, or ``current``.
        after: the same; None: ``before`` is a revision, and what it changed is wanted.
    """
    if after is None:
        if not _NUMBER.fullmatch(before):
            raise UsageError(
                f"diff: {before!r} is no number of a revision, and nothing says what to compare it with",
                f"registryctl mesh diff {CURRENT} {before}",
            )
        old, new = load(session, str(max(int(before) - 1, 0))), load(session, before)
    else:
        old, new = load(session, before), load(session, after)
    # The warnings have their places already.
    plan = make_plan((old.configuration, _compiled(old)), (new.configuration, _compiled(new)))
    return structs.replace(plan_in_sources(plan, {**old.evaluated, **new.evaluated}), warnings=tuple(new.warnings))


def load(session: Session, source: str) -> Definitions:
    """Return the definitions of a directory or a revision.

    Raises:
        RejectedError: they have errors.
    """
    if source != CURRENT and not _NUMBER.fullmatch(source):
        return load_directory(Path(source))
    if source != CURRENT and int(source) == 0:
        # The revision before the first one.
        return _NOTHING
    document = read(session.client.get(f"/v1/mesh/revisions/{quote(source, safe='')}"))
    if document["files"] is None:
        raise RejectedError("only those who may read all services see the files of a revision", "ask an administrator")
    configuration, faults = read_files(document["files"])
    if configuration is None:
        raise RejectedError(
            f"revision {source} has definitions that this version of registryctl does not read",
            "install the version of the registry",
            map(str, faults),
        )
    return Definitions(document["files"], configuration, faults)


def show_difference(session: Session, plan: Plan, before: str) -> None:
    """Print a comparison; no Envoys were counted for it."""
    if session.json:
        session.screen.document(Raw(msgspec.json.encode(plan)))
    else:
        show_plan(session.screen, plan, before)


def plan_in_sources(plan: Plan, evaluated: Mapping[str, Evaluated]) -> Plan:
    """Return a plan whose places in evaluated Jsonnet are those in the Jsonnet files."""
    changes = tuple(
        structs.replace(change, position=place_in_source(change.position, evaluated[change.position.file]))
        if change.position.file in evaluated
        else change
        for change in plan.changes
    )
    return structs.replace(plan, changes=changes, warnings=tuple(in_sources(plan.warnings, evaluated)))


def _compiled(definitions: Definitions) -> Snapshot:
    # Without a catalog gateways are compiled with the services of their files.
    return compile_mesh(definitions.configuration, Catalog())
