"""Build both container images: `make images`, by Docker where its daemon answers, and by buildah elsewhere.

Each image is tagged with the project's version, and its bill of materials is written to dist/. With --debian-base the
base is made of Debian's packages and imported under the name that the Dockerfile asks for: no image registry has to be
reached.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[2]
IMAGES = ("registrar", "registry")

DEBIAN = "trixie"
"""The Debian release whose Python has the minor version of the Dockerfile's base."""

_MIRROR, _SECURITY = "http://deb.debian.org/debian", "http://deb.debian.org/debian-security"
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*")


class BuildError(Exception):
    """An image cannot be built; the text says why and what to do."""


class Builder(Protocol):
    """What builds images and keeps them."""

    def import_base(self, root: Path, name: str) -> None:
        """Make an image of a root file system, an archive of tar."""

    def has(self, name: str) -> bool:
        """Tell whether an image of this name is kept here."""

    def build(self, target: str, name: str, arguments: Sequence[str]) -> None:
        """Build a stage of the Dockerfile."""

    def read(self, name: str, path: str) -> str:
        """Return the text of a file of an image."""

    def save(self, name: str, archive: Path) -> None:
        """Write an image into an archive that `docker load` takes."""


class Docker:
    """Builds by the daemon that the Docker client reaches."""

    def import_base(self, root: Path, name: str) -> None:
        """Make an image of a root file system, an archive of tar."""
        run("docker", "import", "--change", 'CMD ["python3"]', str(root), name)

    def has(self, name: str) -> bool:
        """Tell whether the daemon has an image of this name."""
        return succeeds("docker", "image", "inspect", name)

    def build(self, target: str, name: str, arguments: Sequence[str]) -> None:
        """Build a stage of the Dockerfile."""
        run("docker", "build", "--target", target, "--tag", name, *arguments, str(ROOT))

    def read(self, name: str, path: str) -> str:
        """Return the text of a file of an image."""
        return output("docker", "run", "--rm", "--network", "none", "--entrypoint", "cat", name, path)

    def save(self, name: str, archive: Path) -> None:
        """Write an image into an archive that `docker load` takes."""
        run("docker", "save", "--output", str(archive), name)


class Buildah:
    """Builds without a daemon, into the storage of buildah and podman."""

    def import_base(self, root: Path, name: str) -> None:
        """Make an image of a root file system, an archive of tar."""
        container = output("buildah", "from", "scratch").strip()
        try:
            run("buildah", "add", "--quiet", container, str(root), "/")
            run("buildah", "config", "--cmd", "python3", container)
            run("buildah", "commit", "--quiet", container, f"docker.io/library/{name}")
        finally:
            run("buildah", "rm", container)

    def has(self, name: str) -> bool:
        """Tell whether the storage has an image of this name."""
        return succeeds("buildah", "inspect", "--type", "image", name)

    def build(self, target: str, name: str, arguments: Sequence[str]) -> None:
        """Build a stage of the Dockerfile; the format is Docker's, since OCI's has no health check."""
        reproducible = ("--timestamp", created_at(), "--format", "docker", "--layers", "--network", "host")
        run("buildah", "build", "--target", target, "--tag", name, *reproducible, *arguments, str(ROOT))

    def read(self, name: str, path: str) -> str:
        """Return the text of a file of an image."""
        container = output("buildah", "from", "--pull-never", name).strip()
        try:
            return output("buildah", "run", container, "--", "cat", path)
        finally:
            run("buildah", "rm", container)

    def save(self, name: str, archive: Path) -> None:
        """Write an image into an archive that `docker load` takes."""
        archive.unlink(missing_ok=True)
        run("buildah", "push", "--quiet", name, f"docker-archive:{archive}:{name}")


def builder(wanted: str | None) -> Builder:
    """Return what builds here, or what is wanted.

    Raises:
        BuildError: neither a daemon of Docker nor buildah is here.
    """
    answers = wanted != "buildah" and shutil.which("docker") and succeeds("docker", "version")
    if wanted == "docker" or answers:
        return Docker()
    if wanted == "buildah" or shutil.which("buildah"):
        return Buildah()
    raise BuildError("No daemon of Docker answers and buildah is not installed: start the former or install the latter")


def version() -> str:
    """Return the version of the project, which is the tag of its images."""
    stated: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return stated


def image_name(image: str) -> str:
    """Return the name and the tag of an image."""
    return f"headcount-{image}:{version()}"


def base_name() -> str:
    """Return the name of the base that the Dockerfile asks for."""
    (line,) = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("ARG PYTHON=")]
    return line.removeprefix("ARG PYTHON=")


def created_at() -> str:
    """Return the time that the images bear: SOURCE_DATE_EPOCH, else that of the commit, in seconds since 1970."""
    return os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct") or "0"


def build_arguments() -> list[str]:
    """Return the arguments of a build that say of which commit it is, and where packages come from."""
    revision = _git("rev-parse", "HEAD") or "unknown"
    values = {
        "VERSION": version(),
        "REVISION": revision + ("-modified" if _git("status", "--porcelain", "--untracked-files=no") else ""),
        "CREATED": datetime.fromtimestamp(int(created_at()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "SOURCE_DATE_EPOCH": created_at(),
    }
    if index := os.environ.get("PIP_INDEX_URL"):
        values["PIP_INDEX_URL"] = index
    return [part for name, value in values.items() for part in ("--build-arg", f"{name}={value}")]


def make_debian_root(archive: Path, certificates: Path | None = None) -> None:
    """Write a root file system with Debian's Python into an archive of tar.

    Args:
        archive: where to write.
        certificates: authorities to trust there, for a network whose proxy has one of its own.

    Raises:
        BuildError: mmdebstrap is not installed, or it failed.
    """
    if not shutil.which("mmdebstrap"):
        raise BuildError("--debian-base needs mmdebstrap: apt install mmdebstrap")
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    trusted = [f"--customize-hook=upload {certificates} /etc/ssl/certs/ca-certificates.crt"] if certificates else []
    packages = "python3,python3-venv,ca-certificates"
    command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={packages}", *excluded, *trusted, DEBIAN]
    unfinished = archive.with_suffix(".unfinished.tar")
    run(*command, str(unfinished), f"deb {_MIRROR} {DEBIAN} main", f"deb {_SECURITY} {DEBIAN}-security main")
    unfinished.rename(archive)


def build_images(by: Builder, output_directory: Path, options: Sequence[str]) -> None:
    """Build both images and write their bills of materials."""
    output_directory.mkdir(parents=True, exist_ok=True)
    arguments = [*build_arguments(), *options]
    for image in IMAGES:
        name = image_name(image)
        by.build(image, name, arguments)
        bill = by.read(name, f"/{image}/sbom.cdx.json")
        (output_directory / f"headcount-{image}-{version()}.cdx.json").write_text(bill)
        print(f"{name}: {len(json.loads(bill)['components'])} packages in its bill of materials", flush=True)


def run(*command: str) -> None:
    """Run a command, with its output in sight.

    Raises:
        BuildError: it failed.
    """
    if status := subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode:
        raise BuildError(f"{' '.join(command[:2])} failed with {status}")


def output(*command: str) -> str:
    """Return what a command prints.

    Raises:
        BuildError: it failed.
    """
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise BuildError(f"{' '.join(command[:2])} failed with {done.returncode}")
    return done.stdout


def succeeds(*command: str) -> bool:
    """Tell whether a command succeeds, without its output."""
    return subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def _git(*arguments: str) -> str:
    """Return what git says of this checkout; nothing where this is none."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def main(arguments: Sequence[str]) -> int:
    """Build what the command line asks for, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="make images",
        description="Build both container images.",
        epilog="Other options, such as --platform, go to the build.",
    )
    parser.add_argument("--builder", choices=("docker", "buildah"), help="which to use; unset, the first that works")
    parser.add_argument("--debian-base", action="store_true", help="make the base of Debian's packages, by mmdebstrap")
    parser.add_argument("--archive", action="store_true", help="write the images, too, for `docker load`")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="DIR", help="where files go (dist)")
    options, further = parser.parse_known_args(arguments)
    try:
        by = builder(options.builder)
        if options.debian_base and not by.has(base_name()):
            with tempfile.TemporaryDirectory() as folder:
                make_debian_root(Path(folder, "base.tar"))
                by.import_base(Path(folder, "base.tar"), base_name())
        build_images(by, options.output, further)
        for image in IMAGES if options.archive else ():
            by.save(image_name(image), options.output / f"headcount-{image}-{version()}.docker.tar")
    except BuildError as error:
        print(f"make images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
