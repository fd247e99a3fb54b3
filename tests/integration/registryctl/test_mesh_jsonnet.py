"""Jsonnet definitions: evaluated on this machine, with faults at the place in the Jsonnet file."""

import shutil
import sys
from pathlib import Path

import pytest
from harness.operator import registryctl

from meshconfig.position import Fault, Position
from registryctl.errors import UsageError
from registryctl.mesh.directory import read_directory
from registryctl.mesh.jsonnet import Evaluated, in_source

WEB = """\
local core = import '../lib/core.libsonnet';
{
  service: 'web',
  dependencies: core + [
    { service: 'shop', timeout: '5x' },
  ],
}
"""


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """A directory with a service in Jsonnet and a library."""
    for folder in ("services", "lib"):
        (tmp_path / folder).mkdir()
    (tmp_path / "services/web.jsonnet").write_text(WEB)
    (tmp_path / "lib/core.libsonnet").write_text("[{service: 'user'}]")
    return tmp_path


def fault(mesh: Path, source: str) -> str:
    """Return the fault of a Jsonnet file."""
    (mesh / "services/web.jsonnet").write_text(source)
    [only] = read_directory(mesh).faults
    return str(only)


def test_a_file_is_evaluated_with_its_imports(mesh: Path) -> None:
    """The registry gets the document, a key a line; a library is no definition."""
    files = read_directory(mesh).files
    assert list(files) == ["services/web.jsonnet"]
    assert '  "service": "web"' in files["services/web.jsonnet"].splitlines()


def test_errors_of_jsonnet_have_a_place(mesh: Path) -> None:
    """A syntax error, a failed assertion and a missing import name their line."""
    assert fault(mesh, "{\n  a: 1,,\n}").startswith("services/web.jsonnet:2:8: Jsonnet: Unexpected")
    assert fault(mesh, "{\n  a: error 'no such team',\n}") == "services/web.jsonnet:2:6: Jsonnet: no such team."
    assert "services/web.jsonnet:1:2: Jsonnet: couldn't open import" in fault(mesh, " import 'none.libsonnet'")


def test_endless_recursion_ends(mesh: Path) -> None:
    """Jsonnet bounds its stack, so that a function that calls itself is a fault."""
    assert "services/web.jsonnet:1:" in fault(mesh, "local f(x) = f(x + 1) + 1; { a: f(1) }")


def test_an_evaluation_without_an_end_is_ended(mesh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jsonnet bounds its stack and neither time nor memory; the next file is evaluated by a new process."""
    monkeypatch.setattr("registryctl.mesh.jsonnet_process.EVALUATION_TIMEOUT", 1.0)
    (mesh / "services/other.jsonnet").write_text("{ service: 'other' }")
    endless = "{ a: std.foldl(function(sum, x) sum + x, std.range(0, 50000000), 0) }"
    # A quick machine uses up the memory before the time.
    ends = ("it is not evaluated within 1 s", "its evaluation was ended")
    assert fault(mesh, endless).startswith(tuple(f"services/web.jsonnet: Jsonnet: {end}" for end in ends))
    monkeypatch.undo()
    (mesh / "services/web.jsonnet").write_text(WEB)
    assert list(read_directory(mesh).files) == ["services/other.jsonnet", "services/web.jsonnet"]


def test_a_fault_of_the_document_is_found_in_the_source(mesh: Path) -> None:
    """A key that stands once in the Jsonnet file is the place; another one is quoted from the document."""
    evaluated = read_directory(mesh).evaluated["services/web.jsonnet"]
    lines = evaluated.text.splitlines()
    timeout = next(number for number, line in enumerate(lines, 1) if '"timeout"' in line)
    moved = in_source(Fault(Position("services/web.jsonnet", timeout, 7), "Wrong."), evaluated)
    assert moved.position == Position("services/web.jsonnet", 5, 24)
    from_library = next(number for number, line in enumerate(lines, 1) if '"user"' in line)
    kept = in_source(Fault(Position("services/web.jsonnet", from_library, 7), "Wrong."), evaluated)
    assert str(kept) == 'services/web.jsonnet: Wrong. (The evaluated document has `"service": "user"` there.)'


def test_keys_are_found_in_every_spelling() -> None:
    """A quoted key, a hidden one and one that adds to another are keys; texts and variables are none."""
    evaluated = Evaluated(
        "local retry = 1;\n{ 'retry'+: { attempts:: retry, name: 'retry: x' } }", '{\n  "retry": {}\n}'
    )
    moved = in_source(Fault(Position("services/web.jsonnet", 2, 3), "Wrong."), evaluated)
    assert moved.position == Position("services/web.jsonnet", 2, 3)


def test_without_jsonnet_the_error_says_what_to_install(mesh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named, and the other way: YAML."""
    monkeypatch.setitem(sys.modules, "_gojsonnet", None)
    with pytest.raises(UsageError, match="Jsonnet is not installed") as missing:
        read_directory(mesh)
    assert "headcount[jsonnet]" in missing.value.fix


def test_the_verbs_point_to_keys_in_jsonnet(tmp_path: Path) -> None:
    """Faults, differences and effective values point to the key in the Jsonnet file, not to what it evaluates to."""
    mesh = tmp_path / "new"
    assert registryctl(None, "mesh", "init", str(mesh)).status == 0
    (mesh / "services/web.yaml").unlink()
    web = mesh / "services/web.jsonnet"
    web.write_text("{\n  service: 'web',\n\n  dependencies: [{ service: 'shop', keep_alive: '1s' }],\n}\n")
    rows = registryctl(None, "mesh", "show", "web", "shop", "-d", str(mesh)).out.splitlines()
    assert ["keep_alive", "dependency", "services/web.jsonnet:4:37", "1s"] in [row.split() for row in rows]
    copy = tmp_path / "copy"
    shutil.copytree(mesh, copy)
    (copy / "services/web.jsonnet").write_text(web.read_text().replace("'1s'", "'2s'"))
    said = registryctl(None, "mesh", "diff", str(mesh), str(copy)).out
    assert said.startswith("services/web.jsonnet:4:37  ~ web → shop: keep_alive 1s → 2s\n")
    web.write_text(web.read_text().replace("'1s'", "'x'"))
    assert registryctl(None, "mesh", "validate", str(mesh)).out.startswith("services/web.jsonnet:4:37: keep_alive is")
