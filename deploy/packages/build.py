"""Build headcount-registrar and headcount-registry as deb and rpm from a wheel: `make packages`.

A package brings its Python packages in an environment of its own, and runs on the Python of the distribution: each file
of the lock is unpacked for every version of Python from 3.11 to 3.14, side by side. That works because a wheel's pure
files are the same for all of them, which is checked here, and its extension modules have the version in their names. So
one package for each architecture serves every distribution that has one of these versions, and nothing is compiled or
run to make it: the packages of arm64 are made on amd64.

It needs uv, which reads the lock for another Python and architecture than its own, and nfpm, which writes deb and rpm.
"""

import argparse
import filecmp
import gzip
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from manuals import write_manuals

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NFPM = "github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0"
PYTHONS = ("3.14", "3.13", "3.12", "3.11")
ARCHITECTURES = {"amd64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}
ZSH_DIRECTORIES = {"deb": "vendor-completions", "rpm": "site-functions"}
"""Where zsh looks for completion by packages, below /usr/share/zsh."""
PROGRAMS = {"registrar": ("registrar",), "registry": ("registry", "registryctl")}
"""The commands of each package."""
UNITS = {
    "registrar": ("headcount-registrar.service", "headcount-envoy-overlay.service"),
    "registry": ("headcount-registry.service",),
}
"""The units of each package, of ``deploy/systemd``."""


def main() -> None:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--wheel", type=Path, required=True, help="Headcount's wheel")
    parser.add_argument("--out", type=Path, required=True, help="the directory for the packages")
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES, help="an architecture; without it, all")
    parser.add_argument("--release", action="append", help="a revision behind the version; without it, 1")
    parser.add_argument("--format", action="append", choices=ZSH_DIRECTORIES, help="a format; without it, both")
    arguments = parser.parse_args()
    if shutil.which("uv") is None:
        sys.exit("make packages needs uv, which reads the lock for another Python than its own: pip install uv")
    nfpm = _nfpm()
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or 0) or _last_commit()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for arch, package in product(arguments.arch or ARCHITECTURES, PROGRAMS):
        with TemporaryDirectory(prefix="headcount-package-") as folder:
            root = Path(folder) / "root"
            _make_root(root, package, arch, arguments.wheel.resolve(), seconds)
            for form, release in product(arguments.format or ZSH_DIRECTORIES, arguments.release or ["1"]):
                _move_zsh_completion(root, form)
                environment = {
                    "ROOT": f"{root}/",
                    "ARCH": arch,
                    "VERSION": _version(arguments.wheel),
                    "RELEASE": release,
                    "SOURCE_DATE_EPOCH": str(seconds),
                }
                target = ["--config", f"{package}.yaml", "--packager", form, "--target", str(arguments.out.resolve())]
                _run(*nfpm, "package", *target, environment=environment, folder=HERE)


def _nfpm() -> list[str]:
    """Return the command of nfpm: the one on the PATH that was asked for, or Go's, which fetches it by its hash."""
    if "NFPM" in os.environ:
        return [os.environ["NFPM"]]
    if shutil.which("go") is None:
        sys.exit("make packages needs nfpm: set NFPM to its path, or install Go, which fetches it")
    return ["go", "run", NFPM]


def _last_commit() -> int:
    return int(subprocess.check_output(["git", "log", "-1", "--format=%ct"], cwd=ROOT, text=True))  # noqa: S607


def _version(wheel: Path) -> str:
    """Return the version in the wheel's name, which hatchling has from pyproject.toml."""
    return wheel.name.split("-")[1]


def _make_root(root: Path, package: str, arch: str, wheel: Path, seconds: int) -> None:
    """Lay out the files of one package as they will be below /."""
    home = root / "usr" / "lib" / f"headcount-{package}"
    modules = home / "lib" / "python3"
    for version in PYTHONS:
        unpacked = root.parent / "unpacked"
        _unpack(unpacked, ROOT / "deploy" / "images" / f"{package}.lock", wheel, version, arch)
        _merge(unpacked, modules)
        shutil.rmtree(unpacked)
    _make_environment(home)
    _make_commands(root, package, wheel)
    _add_texts(root, package, seconds)
    _normalise(root, seconds)


def _unpack(target: Path, lock: Path, wheel: Path, version: str, arch: str) -> None:
    """Unpack the locked wheels for one Python, and Headcount's own; no metadata of where they came from stays."""
    options = ["--quiet", "--target", str(target), "--python-version", version, "--no-compile-bytecode"]
    options += ["--python-platform", ARCHITECTURES[arch], "--only-binary", ":all:", "--link-mode", "copy", "--no-deps"]
    _run("uv", "pip", "install", *options, "--require-hashes", "--requirement", str(lock))
    _run("uv", "pip", "install", *options, str(wheel))
    shutil.rmtree(target / "bin", ignore_errors=True)
    (target / ".lock").unlink(missing_ok=True)
    # RECORD and WHEEL differ between Pythons, and the rest says how uv installed it here.
    for information in target.glob("*.dist-info"):
        for name in ("RECORD", "WHEEL", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"):
            (information / name).unlink(missing_ok=True)


def _merge(unpacked: Path, modules: Path) -> None:
    """Add the files for one Python to those for the others.

    Raises:
        SystemExit: a file that the Pythons would share is not the same for both.
    """
    for source in _files(unpacked):
        target = modules / source.relative_to(unpacked)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
        # A bill of materials in a wheel names the wheel; one of them is enough.
        elif not filecmp.cmp(source, target, shallow=False) and "sboms" not in target.parts:
            sys.exit(
                f"{target.relative_to(modules)} differs between two versions of Python: it needs a directory of each"
            )


def _make_environment(home: Path) -> None:
    """Make the files of a virtual environment (PEP 405) that every Python of PYTHONS takes for its own."""
    (home / "bin").mkdir()
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    for version in PYTHONS:
        (home / "bin" / f"python{version}").symlink_to(f"/usr/bin/python{version}")
        (home / "lib" / f"python{version}").mkdir()
        (home / "lib" / f"python{version}" / "site-packages").symlink_to("../python3")


def _make_commands(root: Path, package: str, wheel: Path) -> None:
    """Write the commands of /usr/bin, and what they run: the entry points that the wheel names."""
    home = f"/usr/lib/headcount-{package}"
    (root / "usr" / "bin").mkdir(parents=True)
    for program, entry_point in _entry_points(wheel):
        if program not in PROGRAMS[package]:
            continue
        module, function = entry_point.split(":")
        script = root / home[1:] / "bin" / program
        script.write_text(f"import sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n")
        text = (HERE / "program").read_text()
        for name, value in {"PROGRAM": program, "HOME": home, "VERSIONS": " ".join(PYTHONS)}.items():
            text = text.replace(f"@{name}@", value)
        launcher = root / "usr" / "bin" / program
        launcher.write_text(text)
        launcher.chmod(0o755)


def _entry_points(wheel: Path) -> list[tuple[str, str]]:
    parser = ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        parser.read_string(archive.read(name).decode())
    return parser.items("console_scripts")


def _add_texts(root: Path, package: str, seconds: int) -> None:
    """Add the units, man pages, completion, licence and examples."""
    for unit in UNITS[package]:
        _copy(ROOT / "deploy" / "systemd" / unit, root / "usr" / "lib" / "systemd" / "system" / unit)
    share = root / "usr" / "share"
    documents = share / "doc" / f"headcount-{package}"
    _copy(ROOT / "LICENSE", documents / "copyright")
    if package == "registry":
        _copy(HERE / "registry" / "sysusers.conf", root / "usr" / "lib" / "sysusers.d" / "headcount-registry.conf")
    else:
        for example in ("headcount-envoy-token.conf", "headcount-envoy.conf"):
            _copy(ROOT / "deploy" / "systemd" / example, documents / "examples" / example)
    manuals = root.parent / "manuals"
    write_manuals(manuals, datetime.fromtimestamp(seconds, tz=UTC))
    for program in PROGRAMS[package]:
        page = share / "man" / "man1" / f"{program}.1.gz"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_bytes(gzip.compress((manuals / f"{program}.1").read_bytes(), mtime=0))
        _copy(manuals / f"{program}.bash", share / "bash-completion" / "completions" / program)
        _copy(manuals / f"_{program}", share / "zsh" / ZSH_DIRECTORIES["deb"] / f"_{program}")
        _copy(manuals / f"{program}.fish", share / "fish" / "vendor_completions.d" / f"{program}.fish")


def _move_zsh_completion(root: Path, form: str) -> None:
    """Bring zsh's completion to where the distributions of the format look for it."""
    zsh = root / "usr" / "share" / "zsh"
    for directory in zsh.iterdir():
        directory.rename(zsh / ZSH_DIRECTORIES[form])


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _normalise(root: Path, seconds: int) -> None:
    """Give each file the time of the commit, and the mode that does not depend on the umask."""
    for path in [*root.rglob("*"), root]:
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)
        os.utime(path, (seconds, seconds), follow_symlinks=False)


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file())


def _run(*command: str, environment: dict[str, str] | None = None, folder: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=folder, env=os.environ | (environment or {}), check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} failed: its message is above")


if __name__ == "__main__":
    main()
