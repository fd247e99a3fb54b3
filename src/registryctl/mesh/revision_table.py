"""Revisions of the mesh configuration, as a table and each as a line."""

from collections.abc import Iterable, Sequence

from rich.text import Text

from registryctl.client import Document
from registryctl.mesh.commit import EDITED
from registryctl.output import Cell, Screen
from wire.duration import ago

COMMIT_LETTERS = 10
"""Letters of a commit that are shown: enough to find it."""

_EVERYBODY = 100.0
"""The share of a revision that all Envoys get."""


def show_history(screen: Screen, revisions: Iterable[Document], now: float) -> None:
    """Print revisions, the newest first."""
    rows = [_row(revision, now) for revision in revisions]
    if not rows:
        screen.note("nothing was applied yet; begin with `registryctl mesh init` and `registryctl mesh apply`")
        return
    screen.table(("revision", "applied", "by", "commit", "proven by", "reason"), rows, right=("revision", "applied"))


def revision_line(revision: Document) -> str:
    """Return a revision as a sentence: its number, its author and its reason."""
    return f"revision {revision['number']} by {revision['author']}: {_reason(revision) or 'no reason given'}"


def _row(revision: Document, now: float) -> Sequence[Cell]:
    return (
        str(revision["number"]),
        f"{ago(now - revision['at'])} ago",
        revision["author"],
        _commit(revision["commit"]),
        _proof(revision),
        _reason(revision),
    )


def _commit(text: str) -> str:
    head = text.removesuffix(f" {EDITED}")
    return f"{head[:COMMIT_LETTERS]}{' edited' if head != text else ''}" or "-"


def _proof(revision: Document) -> Cell:
    proof = revision["proof"]
    versions = ", ".join(proof["envoy"])
    if not versions:
        return Text("nobody", "yellow")
    unproven = proof.get("unproven_gateways", ())
    return Text(f"Envoy {versions}, but for {', '.join(unproven)}", "yellow") if unproven else f"Envoy {versions}"


def _reason(revision: Document) -> str:
    notes = []
    if revision["kind"] == "rollback":
        notes.append(f"back to {revision['content']}")
    if revision["share"] < _EVERYBODY:
        notes.append(f"began with {revision['share']:g} %")
    return "; ".join(filter(None, (*notes, revision["reason"])))
