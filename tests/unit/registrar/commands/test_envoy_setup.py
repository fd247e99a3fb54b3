"""`registrar envoy-setup`: what it writes for the Envoy beside it, and what it says when it cannot."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.command_line import run_command
from registrar.commands.envoy_setup import BOOTSTRAP_FILE, BOOTSTRAP_VARIABLE, merged
from wire.envoy_token import SDS_FILE, TOKEN_FILE, token_sds

BASE = {
    "node": {"id": "web", "cluster": "web", "locality": {"region": "nowhere"}},
    "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}},
    "stats_config": {"stats_tags": [{"tag_name": "first", "fixed_value": "x"}]},
}
SETTINGS = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "REGISTRAR_REGISTRY_URL": "http://127.0.0.1:1",
    "REGISTRAR_SERVICE": "web",
    "REGISTRAR_ENDPOINT": ":8080",
    "REGISTRAR_INSTANCE_ID": "task-1",
    "REGISTRAR_REGION": "eu-west-1",
    "REGISTRAR_ZONE": "eu-west-1a",
}
_NAMES = st.text("abc", max_size=2)
"""So few that two objects have some of them in common, which those of any text never had."""
_JSON = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(_NAMES, part, max_size=3),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(_NAMES, _JSON, max_size=4)


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of one task, and no other."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ECS_CONTAINER_METADATA_URI_V4", raising=False)


def test_it_writes_what_envoy_starts_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bootstrap with the task's node id, locality and tag, and the SDS document, readable for Envoy's user."""
    monkeypatch.setenv(BOOTSTRAP_VARIABLE, json.dumps(BASE))
    assert run_command(["envoy-setup", "--directory", str(tmp_path)]) == 0
    document = json.loads((tmp_path / BOOTSTRAP_FILE).read_text())
    assert document["node"] == {
        "id": "task-1",
        "cluster": "web",
        "locality": {"region": "eu-west-1", "zone": "eu-west-1a"},
    }
    assert document["admin"] == BASE["admin"]
    assert [tag["fixed_value"] for tag in document["stats_config"]["stats_tags"]] == ["x", "task-1"]
    assert json.loads((tmp_path / SDS_FILE).read_text()) == json.loads(token_sds(str(tmp_path)))
    assert {path.name for path in tmp_path.iterdir()} == {BOOTSTRAP_FILE, SDS_FILE, TOKEN_FILE}
    assert (tmp_path / TOKEN_FILE).read_text() == ""
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in tmp_path.iterdir())


def test_a_second_run_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that is restarted in place finds its own files."""
    monkeypatch.setenv(BOOTSTRAP_VARIABLE, json.dumps(BASE))
    written = []
    for _ in range(2):
        assert run_command(["envoy-setup", "--directory", str(tmp_path)]) == 0
        written.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert written[0] == written[1]


def test_the_document_names_the_file_of_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Envoy reads the file that the registrar writes, whatever its name is; a token that is there stays."""
    monkeypatch.setenv(BOOTSTRAP_VARIABLE, json.dumps(BASE))
    (tmp_path / "shop-token").write_text("hcs_1")
    monkeypatch.setenv("REGISTRAR_ENVOY_TOKEN_FILE", str(tmp_path / "shop-token"))
    monkeypatch.setenv("REGISTRAR_ENVOY_TOKEN", "hcs_2")
    assert run_command(["envoy-setup"]) == 0
    assert json.loads((tmp_path / SDS_FILE).read_text()) == json.loads(token_sds(str(tmp_path), "shop-token"))
    assert not (tmp_path / TOKEN_FILE).exists()


def test_the_bootstrap_may_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wins over the variable."""
    monkeypatch.setenv(BOOTSTRAP_VARIABLE, "of no use")
    file = tmp_path / "web.json"
    file.write_text(json.dumps(BASE))
    assert run_command(["envoy-setup", "--directory", str(tmp_path), "--bootstrap", str(file)]) == 0
    assert json.loads((tmp_path / BOOTSTRAP_FILE).read_text())["node"]["cluster"] == "web"


@pytest.mark.parametrize(
    ("bootstrap", "arguments", "said"),
    [
        (None, [], "ENVOY_BOOTSTRAP: Envoy's bootstrap is missing; set ENVOY_BOOTSTRAP to what `registryctl mesh"),
        (" \n", [], "ENVOY_BOOTSTRAP: Envoy's bootstrap is missing"),
        ("node: {cluster: web}", [], "ENVOY_BOOTSTRAP: no JSON object"),
        ("[1]", [], "ENVOY_BOOTSTRAP: no JSON object"),
        (None, ["--bootstrap", "/gone/web.json"], "--bootstrap /gone/web.json: No such file or directory"),
        (json.dumps(BASE), ["--owner", "envoy"], "--owner envoy: not of the form uid:gid"),
        (json.dumps(BASE), ["--directory", "/gone"], "/gone/token: No such file or directory"),
    ],
)
def test_it_fails_loudly(
    bootstrap: str | None,
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a bootstrap, or a place for it, the task has to stop, and its log has one line that says why."""
    monkeypatch.delenv(BOOTSTRAP_VARIABLE, raising=False)
    if bootstrap is not None:
        monkeypatch.setenv(BOOTSTRAP_VARIABLE, bootstrap)
    assert run_command(["envoy-setup", "--directory", str(tmp_path), *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [said in line for line in lines if line.startswith("registrar: ")] == [True], lines
    assert list(tmp_path.iterdir()) == []


@given(_OBJECTS, _OBJECTS)
def test_merging_keeps_what_is_not_named(base: dict[str, Any], over: dict[str, Any]) -> None:
    """Every key of both is there; what only one of them has is as it was."""
    result = merged(base, over)
    assert result.keys() == base.keys() | over.keys()
    assert all(result[key] == base[key] for key in base.keys() - over.keys())
    assert all(result[key] == over[key] for key in over.keys() - base.keys())
    assert merged(base, {}) == base
