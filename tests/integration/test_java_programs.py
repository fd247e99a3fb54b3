"""Peers in Java that cannot be had are left out by name, with the reason."""

import io
import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import page, registries
from benchmarks.machine import this_machine
from benchmarks.peers import java_programs
from benchmarks.plan import Plan
from benchmarks.report import Part

_NAMESPACE = "{http://maven.apache.org/POM/4.0.0}"
_PROGRAMS = (java_programs.EUREKA, java_programs.ZOOKEEPER)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory of programs, which is empty; nothing is built yet."""
    monkeypatch.setattr(java_programs, "HOME", tmp_path / "peers")
    found = tmp_path / "bin"
    found.mkdir()
    monkeypatch.setenv("PATH", str(found))
    return found


def _write_program(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.usefixtures("programs")
def test_without_java_the_peers_are_named_as_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output and the page name each, and say what to install."""
    output, written = io.StringIO(), tmp_path / "RESULTS.md"
    part, console = Part("registries", "Registries", this_machine()), Console(file=output, width=300)
    assert registries.available(part, Plan(quick=True, console=console)) == []
    page.show(console, part)
    monkeypatch.setattr(page, "PAGE", written)
    page.write([part], {})
    for text, name in itertools.product((output.getvalue(), written.read_text()), ("Eureka", "ZooKeeper")):
        assert any(name in line and "apt install openjdk" in line for line in text.splitlines())


def test_without_maven_nothing_is_fetched(programs: Path) -> None:
    """A JDK alone does not have them."""
    _write_program(programs, "javac", "exit 0")
    assert "apt install maven" in (java_programs.build(java_programs.EUREKA) or "")


@pytest.mark.parametrize("broken", ["mvn", "javac"])
def test_the_first_error_of_a_build_is_the_reason(programs: Path, broken: str) -> None:
    """It is told without colours, and a build that failed is tried again."""
    for name in ("mvn", "javac"):
        _write_program(programs, name, "exit 0")
    _write_program(programs, broken, r"printf 'hm\n\033[31m[ERROR] no such host\033[m\n[ERROR] help is at\n'; exit 1")
    for _ in range(2):
        assert java_programs.build(java_programs.ZOOKEEPER) == f"{broken} failed: [ERROR] no such host"


def test_a_program_is_built_once(programs: Path) -> None:
    """What was built stays, until its sources change."""
    for name in ("mvn", "javac"):
        _write_program(
            programs, name, f'echo {name} >> "{programs}/log"; /bin/mkdir -p "{java_programs.HOME}/zookeeper"'
        )
    assert [java_programs.build(java_programs.ZOOKEEPER) for _ in range(2)] == [None, None]
    assert (programs / "log").read_text().split() == ["mvn", "javac"]


@pytest.mark.parametrize("program", _PROGRAMS)
def test_every_version_is_pinned(program: str) -> None:
    """A range or a name would bring another peer each time."""
    sources = Path(java_programs.__file__).with_name("java") / program / "pom.xml"
    versions = [element.text or "" for element in ET.parse(sources).iter(f"{_NAMESPACE}version")]
    assert versions
    assert all(version.replace(".", "").isdigit() for version in versions)
