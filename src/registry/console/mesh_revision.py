"""The page of one revision of the mesh configuration: who, why, what it changes in meaning, and its files."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response
from msgspec import Struct

from registry.console.mesh import RevisionNumber
from registry.console.page import Framed, Missing, ask, ask_compiler
from registry.errors import NotFoundError
from registry.http.dependencies import READY, MeshRevisionsPart, MeshStatusPart, Reader
from registry.http.views.mesh import revision_view

router = APIRouter(dependencies=[READY])

_MAX_CHANGES = 200
"""Differences that the page shows."""
_MAX_FILES = 1_000
"""Files that the page lists."""
_MAX_LINES = 5_000
"""Lines of a file that the page shows."""


class File(Struct, frozen=True):
    """One file of a revision in numbers."""

    path: str
    lines: int


class Text(Struct, frozen=True):
    """The text of one file, by its lines; ``more`` counts those that are left out."""

    path: str
    lines: Sequence[str]
    more: int


@router.get("/mesh/revisions/{number}")
async def show_revision(
    number: RevisionNumber,
    mesh: MeshRevisionsPart,
    status: MeshStatusPart,
    reader: Reader,
    frame: Framed,
    file: Annotated[str, Query(max_length=255)] = "",
) -> Response:
    """Show one revision, and the text of one of its files where that is asked for."""
    detail = await ask(mesh.revision(reader, number))
    if isinstance(detail, Missing):
        return frame.page("mesh_revision.html", number=number, revision=detail)
    files = None if detail.files is None else msgspec.json.decode(detail.files, type=dict[str, str])
    newest = await ask(mesh.revisions(reader, before=None, limit=1))
    changes = None if file else await ask_compiler(status.difference(reader, number))
    return frame.page(
        "mesh_revision.html",
        number=number,
        revision=revision_view(detail.revision),
        in_force=not isinstance(newest, Missing) and newest[0].content == detail.revision.content,
        changes=changes if changes is None or isinstance(changes, Missing) else changes[:_MAX_CHANGES],
        total=0 if changes is None or isinstance(changes, Missing) else len(changes),
        files=None if files is None else _files(files),
        file_count=0 if files is None else len(files),
        text=_text(files, file, number) if file and files is not None else None,
    )


def _files(files: Mapping[str, str]) -> list[File]:
    return [File(path, len(text.splitlines())) for path, text in sorted(files.items())[:_MAX_FILES]]


def _text(files: Mapping[str, str], path: str, number: int) -> Text:
    if path not in files:
        raise NotFoundError(f"revision {number} has no file {path!r}")
    lines = files[path].splitlines()
    return Text(path, lines[:_MAX_LINES], len(lines[_MAX_LINES:]))
