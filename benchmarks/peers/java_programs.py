"""The Java programs of ``java/``: the server of Eureka, and ZooKeeper with the client that loads it.

What their ``pom.xml`` list is fetched by Maven, which compares the checksums, into the environment.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

EUREKA = "eureka"
ZOOKEEPER = "zookeeper"

_SOURCES = Path(__file__).with_name("java")
HOME = Path(sys.prefix) / "peers" / "java"
"""Where they are built."""
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_FETCH_TIMEOUT = 600
"""Seconds; Eureka's libraries are 60 MB."""
_COMPILE_TIMEOUT = 120
_RELEASE = 17
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TOTAL = re.compile(r"^Total\s+\d+\s+(\d+)$", re.MULTILINE)


def build(name: str) -> str | None:
    """Fetch and compile a program, if its sources changed; return why that cannot be done."""
    home, sources = HOME / name, _SOURCES / name
    stamp, digest = home / ".ready", _digest(sources)
    javac, maven = shutil.which("javac"), shutil.which("mvn")
    if javac is None:
        return f"a JDK {_RELEASE} is not installed; Debian and Ubuntu have it: apt install openjdk-17-jdk-headless"
    if stamp.is_file() and stamp.read_text() == digest:
        return None
    if maven is None:
        return "Maven, which fetches it, is not installed; Debian and Ubuntu have it: apt install maven"
    shutil.rmtree(home, ignore_errors=True)
    # It would remember what it did not find once, and not ask again.
    options = ["--batch-mode", "--quiet", "--strict-checksums", "--update-snapshots", "-Dstyle.color=never"]
    fetch = [maven, *options, f"--file={sources / 'pom.xml'}", _COPY]
    steps = [
        ([*fetch, "-DincludeScope=runtime", f"-DoutputDirectory={home / 'lib'}"], _FETCH_TIMEOUT),
        (
            [javac, f"--release={_RELEASE}", "-proc:none", "-cp", f"{home / 'lib'}/*", "-d", str(home / "classes")]
            + [str(path) for path in sorted(sources.glob("*.java"))],
            _COMPILE_TIMEOUT,
        ),
    ]
    for command, seconds in steps:
        program = Path(command[0]).name
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"{program} took longer than {seconds} s"
        except subprocess.CalledProcessError as error:
            return f"{program} failed: {_first_error(error.stdout + error.stderr)}"
    stamp.write_text(digest)
    return None


def command(name: str, main: str, *options: str) -> list[str]:
    """Return the command line of a program that was built, up to its own arguments."""
    home = HOME / name
    return ["java", *options, "-cp", os.pathsep.join([str(home / "classes"), f"{home / 'lib'}/*"]), main]


def version(name: str, library: str) -> str:
    """Return the version of a library that was fetched."""
    (path,) = (HOME / name / "lib").glob(f"{library}-[0-9]*.jar")
    return path.stem.removeprefix(f"{library}-")


def java_version() -> str:
    """Return the version of Java that runs them."""
    told = subprocess.run(["java", "-version"], check=True, capture_output=True, text=True).stderr  # noqa: S607
    found = re.search(r'version "([^"]+)"', told)
    return found[1] if found else told.splitlines()[0]


def live_heap(pid: int) -> int:
    """Return the bytes of all objects that a Java process still uses, after it has collected the others.

    Raises:
        RuntimeError: it does not tell.
    """
    told = subprocess.run(
        ["jcmd", str(pid), "GC.class_histogram"],  # noqa: S607  # of the JDK on the PATH
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = _TOTAL.search(told)
    if found is None:
        raise RuntimeError(f"jcmd tells no total: {told[-500:]}")
    return int(found[1])


def _digest(sources: Path) -> str:
    files = sorted(path for path in sources.rglob("*") if path.is_file())
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def _first_error(told: str) -> str:
    lines = [line.strip() for line in _COLOUR.sub("", told).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it said nothing"])[0][:500]
