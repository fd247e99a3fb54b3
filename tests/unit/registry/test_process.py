"""The parts of a process against the lists that name them elsewhere."""

from typing import get_args

import pytest

from registry.http import dependencies
from registry.http.lists.lists import Lists
from registry.process import RegistryProcess
from registry.settings import load_settings
from registry.xds.resources import TYPES


@pytest.fixture(scope="module")
def process() -> RegistryProcess:
    """A process that is not started, so that it asks nobody."""
    return RegistryProcess(load_settings(), "postgresql://nobody@127.0.0.1:1/nothing")


def test_every_resource_type_is_served(process: RegistryProcess) -> None:
    """A type in `TYPES` is described in the OpenAPI document, so the process has to have a cache for it."""
    assert [path.type for path in process.discovery.paths.values()] == [
        kind for kind in sorted(TYPES, key=lambda kind: kind.order) for _ in kind.type_urls
    ]


def test_every_part_that_routes_ask_for_is_built(process: RegistryProcess) -> None:
    """An alias in `registry.http.dependencies` names a class of which the process has an instance."""
    aliases = {name: get_args(kind) for name, kind in vars(dependencies).items() if name.endswith("Part")}
    asked = {name: kinds[0] for name, kinds in aliases.items() if kinds}
    assert len(asked) > 10
    # The lists are encoded in front of the process, by the application.
    built = {*process.parts, Lists}
    assert {name for name, kind in asked.items() if kind not in built} == set()
