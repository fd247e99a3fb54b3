"""Build all that a release has into dist/release: `make release`. Nothing is pushed, tagged or signed.

Two clones of one commit make the same bytes, since every date is that of the commit. The version is that of
pyproject.toml, and is written nowhere else by hand.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


def main() -> None:
    """Build everything, and list it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--no-images", action="store_true", help="leave the container images out")
    parser.add_argument("--debian-base", action="store_true", help="build the images on a base of Debian's packages")
    arguments = parser.parse_args()
    if changed := _output("git", "status", "--porcelain"):
        sys.exit(f"A release is made of a commit, and this checkout has changes:\n{changed}")
    os.environ["SOURCE_DATE_EPOCH"] = _output("git", "log", "-1", "--format=%ct").strip()
    version = project_version()
    out = ROOT / "dist" / "release"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    wheel, sdist = _build("wheel", ROOT, out), _build("sdist", ROOT, out)
    _check_sdist(sdist, wheel)
    _run(sys.executable, str(HERE / "build.py"), "--wheel", str(wheel), "--out", str(out))
    if reason := "as asked" if arguments.no_images else _no_images():
        print(f"The images are left out: {reason}.")
    else:
        base = ["--debian-base"] if arguments.debian_base else []
        _run(sys.executable, "deploy/images/build.py", "--archive", "--output", str(out), *base)

    notes, warnings = release_notes((ROOT / "CHANGELOG.md").read_text(), version)
    (out / f"CHANGELOG-{version}.md").write_text(notes)
    files = sorted(out.iterdir())
    (out / "SHA256SUMS").write_text("".join(f"{_sha256(path)}  {path.name}\n" for path in files))
    print((out / "SHA256SUMS").read_text(), end="")
    print(f"{len(files)} files and SHA256SUMS are in {out.relative_to(ROOT)}; nothing was pushed or tagged.")
    for warning in warnings:
        print(f"This is a candidate and no release: {warning}.")


def _no_images() -> str:
    """Return why no image can be built here; nothing where one can."""
    if shutil.which("buildah"):
        return ""
    if shutil.which("docker") is None:
        return "neither Docker nor buildah is installed"
    answers = subprocess.run(["docker", "version"], check=False, capture_output=True).returncode == 0  # noqa: S607
    return "" if answers else "no daemon of Docker answers, and buildah is not installed"


def project_version() -> str:
    """Return the version that pyproject.toml states."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version


def release_notes(changelog: str, version: str) -> tuple[str, list[str]]:
    """Return the sections of a version, and what is missing for a release.

    Lines under Unreleased come first: what is built here has their changes.

    Raises:
        SystemExit: the version has no section.
    """
    parts = re.split(r"^## \[(.+?)\](.*)\n", changelog, flags=re.MULTILINE)[1:]
    sections = {name: (rest.strip(" -"), body.strip()) for name, rest, body in zip(*[iter(parts)] * 3, strict=True)}
    if version not in sections:
        sys.exit(f"CHANGELOG.md has no section [{version}], which is the version of pyproject.toml")
    date, body = sections[version]
    unreleased = sections.get("Unreleased", ("", ""))[1]
    warnings = []
    if unreleased:
        warnings.append(f"CHANGELOG.md has lines under Unreleased, which belong into [{version}]")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        warnings.append(f"[{version}] in CHANGELOG.md has no date")
    return "\n\n".join(text for text in (f"# Headcount {version}", unreleased, body) if text) + "\n", warnings


def _build(target: str, source: Path, out: Path) -> Path:
    before = set(out.iterdir())
    _run(sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(out), folder=source)
    (built,) = set(out.iterdir()) - before
    return built


def _check_sdist(sdist: Path, wheel: Path) -> None:
    """Build the wheel once more from the sdist.

    Raises:
        SystemExit: it is another one.
    """
    with TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (source,) = Path(folder).iterdir()
        target = Path(folder) / "dist"
        target.mkdir()
        if _build("wheel", source, target).read_bytes() != wheel.read_bytes():
            sys.exit(f"The wheel that {sdist.name} builds is not the one that this checkout builds")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _output(*command: str) -> str:
    return subprocess.check_output(command, cwd=ROOT, text=True)  # noqa: S603


def _run(*command: str, folder: Path = ROOT) -> None:
    sys.stdout.flush()
    if subprocess.run(command, cwd=folder, check=False).returncode:  # noqa: S603
        sys.exit(f"{' '.join(command[1:4])} failed: its message is above")


if __name__ == "__main__":
    main()
