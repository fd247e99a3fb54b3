"""The files from which an Envoy takes its token."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wire.atomic_file import PRIVATE, PUBLIC, replace_file
from wire.envoy_token import prepare_token_files


def test_a_token_that_is_written_meanwhile_keeps_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode is that of the empty file, and not of what has its name by then."""
    path = tmp_path / "token"

    def late(change: Callable[..., None]) -> Callable[..., None]:
        def change_late(*arguments: Any, **options: Any) -> None:
            if not path.read_bytes():
                replace_file(path, b"secret", PRIVATE)
            change(*arguments, **options)

        return change_late

    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, late(getattr(os, name)))
    prepare_token_files(path, PUBLIC)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"secret", PRIVATE)
    path.unlink()
    monkeypatch.undo()
    prepare_token_files(path, PUBLIC)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"", PUBLIC)
