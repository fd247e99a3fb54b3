"""`registrar bootstrap`: the overlay of Envoy's bootstrap, from the identity that registrations have."""

import json
import os
import stat
from pathlib import Path

from harness.link import FakeTask
from integration.registrar.processes import SOURCES, run_verb

from registrar.commands.bootstrap import overlay
from registrar.identity.resolver import Identity

TASK = "158d1c8083dd49d6b527399fd6414f5c"
BASE = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": SOURCES,
    "REGISTRAR_REGISTRY_URL": "http://127.0.0.1:1",
    "REGISTRAR_SERVICE": "shop",
    "REGISTRAR_ENDPOINT": ":8080",
}


async def test_it_is_of_the_task(tmp_path: Path) -> None:
    """Node id, zone and tag are those of the task, in a file that Envoy's user can read, and no registry is asked."""
    path = tmp_path / "overlay.json"
    with FakeTask("tmds-v4-fargate-awsvpc-task") as task:
        status, out, err = await run_verb(BASE | task.variables, "bootstrap", "--out", str(path))
    assert (status, out) == (0, ""), err
    assert json.loads(path.read_text()) == {
        "node": {"id": TASK, "locality": {"region": "ap-northeast-1", "zone": "ap-northeast-1c"}},
        "stats_config": {"stats_tags": [{"tag_name": "service-node", "fixed_value": TASK}]},
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


async def test_it_goes_to_standard_output_or_says_why_not(tmp_path: Path) -> None:
    """One line that can be an argument; a place that cannot be written is a fault of the option."""
    named = BASE | {"REGISTRAR_INSTANCE_ID": "vm-1", "AWS_EC2_METADATA_DISABLED": "true"}
    status, out, err = await run_verb(named, "bootstrap")
    assert (status, out.count("\n"), json.loads(out)["node"]["id"]) == (0, 1, "vm-1"), err
    status, _, err = await run_verb(named, "bootstrap", "--out", str(tmp_path / "gone" / "overlay.json"))
    assert (status, "--out" in err, "No such file" in err) == (2, True, True)


def test_what_is_not_known_is_not_said() -> None:
    """An empty zone would be a zone of its own to Envoy."""
    assert overlay(Identity("vm-1", 1))["node"] == {"id": "vm-1"}
    assert overlay(Identity("vm-1", 1, region="r"))["node"]["locality"] == {"region": "r"}
