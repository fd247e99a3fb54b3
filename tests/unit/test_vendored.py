"""Files of others that lie in the repository are what was published, with their licences."""

import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "src" / "registry" / "console" / "static"
FOLDERS = [*(SHIPPED / name for name in ("dagre", "htmx", "swagger", "uplot")), ROOT / "tests" / "browser" / "axe"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_vendored_files_are_as_published(folder: Path) -> None:
    """Every file has the checksum that CHECKSUMS notes with its release, and the licence lies beside it."""
    first, *lines = (folder / "CHECKSUMS").read_text().splitlines()
    assert re.fullmatch(r"[@a-z./-]+ [0-9.]+ \(npm\), [^;]+;.* sha256:", first)
    noted = {name: checksum for checksum, name in (line.split("  ") for line in lines)}
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    own = {"CHECKSUMS", "LICENSE", "NOTICE"}
    assert {name: checksum for name, checksum in digests.items() if name not in own} == noted
    assert "LICENSE" in digests


def test_what_others_wrote_is_known() -> None:
    """A folder among the shipped files is the console's own or stands above."""
    folders = {path.name for path in SHIPPED.iterdir()}
    assert folders == {"console"} | {folder.name for folder in FOLDERS if folder.parent == SHIPPED}
