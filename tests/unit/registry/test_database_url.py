"""The file that has PostgreSQL's URL: the newest one that is one."""

from pathlib import Path

import pytest
import structlog

from registry.database_url import UrlFile, current_url
from registry.errors import BadSettingsError

FIRST, SECOND = "postgresql://u:hunter2@db/h", "postgresql://u:hunter3@db/h"


def test_each_reading_has_what_the_file_has_then(tmp_path: Path) -> None:
    """An editor's newline is none of it."""
    path = tmp_path / "url"
    path.write_text(f"{FIRST}\n")
    file = UrlFile(path)
    assert current_url(file) == FIRST
    path.write_text(SECOND)
    assert current_url(file) == SECOND


@pytest.mark.parametrize("content", [None, b"", b"hunter3", b"\xff\xfe", b"postgresql://u:hunter3@db:x/h"])
def test_a_file_without_a_url_changes_nothing_and_is_logged_once(tmp_path: Path, content: bytes | None) -> None:
    """It may be half-written, and its content may be a password: nothing of it is logged."""
    path = tmp_path / "url"
    path.write_text(FIRST)
    file = UrlFile(path)
    file.read()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with structlog.testing.capture_logs() as logs:
        assert [file.read(), file.read()] == [FIRST, FIRST]
        path.write_text(SECOND)
        assert file.read() == SECOND
    assert [entry["event"] for entry in logs] == ["database_url_file_ignored"] * 2
    assert "hunter" not in str(logs)


def test_a_file_that_never_had_a_url_ends_the_start(tmp_path: Path) -> None:
    """With its name and without its content."""
    path = tmp_path / "url"
    with pytest.raises(BadSettingsError, match=r"REGISTRY_DATABASE_URL_FILE: .*url cannot be read: No such file"):
        UrlFile(path).read()
    path.write_text("hunter2")
    with pytest.raises(BadSettingsError, match=r"has to begin with postgresql://$") as caught:
        UrlFile(path).read()
    assert "hunter2" not in str(caught.value)
