"""Build the documentation site: a directory for each version, `latest`, and the list of them.

Run as ``python docs/site/build.py build/site``. Versions that are already in that directory stay as they are, so that a
directory that is published once gathers them. With ``--external`` nothing is built: the links that lead out of the site
are asked for.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from links import faults

ROOT = Path(__file__).parents[2]
CONFIGURATION = Path(__file__).parent
_VERSION = re.compile(r"\d+\.\d+")

_INDEX = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Headcount</title>
<meta http-equiv="refresh" content="0; url=latest/docs/index.html">
<a href="latest/docs/index.html">The documentation of Headcount</a>
</html>
"""


def main() -> int:
    """Build the site of this version, and return the exit status."""
    parser = argparse.ArgumentParser(description="Build the documentation site.")
    parser.add_argument("site", type=Path, help="the directory of all versions")
    parser.add_argument("--external", action="store_true", help="ask for the targets outside of the site instead")
    arguments = parser.parse_args()
    if arguments.external:
        return _sphinx("linkcheck", arguments.site.with_name("sitelinks"))
    version = documented_version()
    folder = arguments.site / version
    shutil.rmtree(folder, ignore_errors=True)
    if status := _sphinx("html", folder):
        return status
    # Source maps are half of the site, for debugging the theme; the macros are a template of the theme.
    for path in [*folder.rglob("*.map"), *folder.rglob("webpack-macros.html"), folder / ".buildinfo"]:
        path.unlink()
    broken = faults(folder)
    print("\n".join(broken) or f"{len(list(folder.rglob('*.html')))} pages of version {version}, no broken link")
    if not broken:
        publish(arguments.site, version)
        print(f"Open {(arguments.site / 'index.html').resolve()}")
    return int(bool(broken))


def documented_version() -> str:
    """Return the version that this checkout documents: patch releases share their pages."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    match = _VERSION.match(version)
    if match is None:
        raise SystemExit(f"pyproject.toml has version {version!r}; the site needs one that begins as 1.2 does")
    return match[0]


def _sphinx(builder: str, folder: Path) -> int:
    """Run one of Sphinx's builders on everything, where a warning is an error, and return its exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    # What Sphinx keeps from a build is read by no later one: it would hide the warnings of unchanged pages.
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--fresh-env", "--jobs", "auto", "--builder", builder]
    options += ["--conf-dir", str(CONFIGURATION), "--doctree-dir", str(ROOT / "build" / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT), str(folder)]
    return subprocess.run(command, check=False).returncode  # noqa: S603  # Sphinx, in this environment


def newest_first(names: Iterable[str]) -> list[str]:
    """Return the names that are versions, the newest first."""
    return sorted(filter(_VERSION.fullmatch, names), key=lambda name: [*map(int, name.split("."))], reverse=True)


def publish(site: Path, built: str) -> None:
    """Write the list of versions, and make the one that was built `latest` unless a newer one is there."""
    versions = newest_first(path.name for path in site.iterdir() if path.is_dir())
    if versions[0] == built:
        shutil.rmtree(site / "latest", ignore_errors=True)
        shutil.copytree(site / built, site / "latest")
    script = (
        f"window.headcountVersions = {json.dumps(versions)};\nwindow.headcountLatest = {json.dumps(versions[0])};\n"
    )
    (site / "versions.js").write_text(script)
    (site / "index.html").write_text(_INDEX)


if __name__ == "__main__":
    sys.exit(main())
