"""Plans and applications of a directory's definitions, and later changes of a revision."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Raw, Struct

from registryctl.client import read
from registryctl.errors import ConflictError, UsageError
from registryctl.faults import faults_in
from registryctl.mesh.api import Application, MeshApi, plan_of
from registryctl.mesh.commit import commit_of
from registryctl.mesh.definitions import in_sources, load_directory
from registryctl.mesh.difference_view import CHANGES, plan_in_sources
from registryctl.mesh.jsonnet import Evaluated
from registryctl.mesh.plan_text import revision_name, show_plan
from registryctl.mesh.proving import proof_document
from registryctl.mesh.revision_table import revision_line
from registryctl.mesh.rollout_view import follow_rollout
from registryctl.mesh.words import listed
from registryctl.progress import progress
from registryctl.session import Session
from wire.duration import ago

MAX_BETWEEN = 10
"""Revisions that a conflict names."""

_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?) ?%?")


class Wanted(Struct, frozen=True):
    """The options of an apply, as the command line has them."""

    reason: str
    commit: str | None
    share: str
    base: int | None
    removals: Sequence[str]
    envoys: Sequence[str]
    unproven: bool


def plan_directory(session: Session, directory: Path, removals: Sequence[str], envoys: Sequence[str]) -> int:
    """Print the plan of an apply, and return the exit status."""
    definitions = load_directory(directory)
    proof = proof_document(session, definitions, envoys)
    application = Application(definitions.files, reason="", allow_removal=removals, proof=proof)
    with progress(session.screen.err, "the registry compiles and compares"):
        document = MeshApi(session.client).plan(application)
    plan = plan_of(document)
    if session.json:
        session.screen.document(document)
    else:
        show_plan(session.screen, plan_in_sources(plan, definitions.evaluated), revision_name(plan.base))
        if not plan.empty:
            place = "" if directory == Path() else f" {directory}"
            session.screen.note(f"to apply it: registryctl mesh apply{place} --base {plan.base} --reason TEXT")
    return 0 if plan.empty else CHANGES


def apply_directory(session: Session, directory: Path, wanted: Wanted, *, watch: bool) -> int:
    """Apply a directory's definitions, print what became of it, and return the exit status."""
    share = _share(wanted.share)
    definitions = load_directory(directory)
    api = MeshApi(session.client)
    application = Application(
        definitions.files,
        wanted.reason,
        commit_of(directory) if wanted.commit is None else wanted.commit,
        # Somebody else's revision that comes while this one is proven is not overwritten.
        api.current() if wanted.base is None else wanted.base,
        share,
        wanted.removals,
        wanted.unproven,
        proof_document(session, definitions, wanted.envoys),
    )
    try:
        with progress(session.screen.err, "the registry compiles, proves and stores"):
            document = api.apply(application)
    except ConflictError as error:
        raise _with_revisions(error, api, application.base or 0, session.client.now) from None
    _report(session, document, definitions.evaluated)
    return follow_rollout(session) if watch else 0


def roll_back(session: Session, number: int, reason: str, removals: Sequence[str], *, watch: bool) -> int:
    """Serve an earlier revision again, print what became of it, and return the exit status."""
    _report(session, MeshApi(session.client).roll_back(number, reason, removals))
    return follow_rollout(session) if watch else 0


def _with_revisions(error: ConflictError, api: MeshApi, base: int, now: float) -> ConflictError:
    """Return a conflict with the revisions that came between: who applied each, when and why."""
    between = [revision for revision in api.revisions(MAX_BETWEEN) if revision["number"] > base]
    lines = [f"{revision_line(each)} ({ago(now - each['at'])} ago)" for each in reversed(between)]
    return ConflictError(str(error), error.fix, (*error.details, *lines))


def _report(session: Session, document: Raw, evaluated: Mapping[str, Evaluated] | None = None) -> None:
    if session.json:
        session.screen.document(document)
        return
    applied = read(document)
    screen = session.screen
    screen.say(f"applied {revision_line(applied)}")
    nodes = applied["nodes"]
    screen.say(f"it changes the resources of {listed(nodes)}" if nodes else "it changes nothing that Envoys are served")
    for kept in applied["kept"]:
        why = "it is not certain that no Envoy polls" if kept in applied["in_doubt"] else "its Envoys poll"
        screen.say((f"{kept} stays as it is: that revision lacks it, and {why}", "yellow"))
    for fault in in_sources(faults_in(bytes(document), "warnings"), evaluated or {}):
        screen.say((str(fault), "yellow"))


def _share(text: str) -> float | None:
    if not text:
        return None
    match = _SHARE.fullmatch(text.strip())
    share = float(match[1]) if match else 0.0
    if not 0 < share <= 100:  # a percentage
        raise UsageError(f"--share: {text!r} is no percentage above 0 and up to 100", "write it like 10%")
    return share
