"""Plans in words."""

import io

from meshconfig.effective import Configuration
from meshconfig.planning import make_plan
from meshconfig.repository import read
from meshconfig.resource import Snapshot
from registryctl.mesh.plan_text import revision_name, show_plan
from registryctl.output import Screen


def test_a_first_plan_says_that_nothing_is_there() -> None:
    """And compares nothing with built-in values, which nobody has had."""
    after, _ = read({"mesh.yaml": "environment: staging\n"})
    assert after is not None
    out = io.StringIO()
    show_plan(Screen(out), make_plan((Configuration(), Snapshot({})), (after, Snapshot({}))), revision_name(0))
    first, second, _ = out.getvalue().splitlines()
    assert first == "nothing was applied yet: all of this is new"
    assert second == "mesh.yaml  + mesh (environment staging, registries [127.0.0.1:8080])"
    assert "→" not in out.getvalue()
