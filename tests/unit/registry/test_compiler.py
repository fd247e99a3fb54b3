"""The compiler's work on what somebody wants to apply."""

import zlib

import msgspec
import pytest

from meshconfig.position import Severity
from meshconfig.resource import Catalog
from registry.compiler import compiler
from registry.compiler.job import CompareMesh, Compile, Compiled, Shown
from registry.compiler.work import work
from registryctl.mesh.api import APPLY_TIMEOUT

FILES = {
    "services/web.yaml": "service: web\n",
    "gateways/staging.yaml": "listen: {port: 50051}\nselect: {services: [shop, user]}\npaths: true\n"
    "hosts: '{service}.grpc.example'\n",
}
CATALOG = Catalog({"shop": {}, "user": {}}, {"shop": ("user.v1.Users",), "user": ("user.v1.Users",)})


def compiled(catalog: Catalog, *, strict: bool = False) -> Compiled:
    """Return the result of a plan for these files."""
    document = msgspec.json.encode({"files": FILES, "strict": strict, "unproven": True})
    result = work(Compile(document, catalog, plan=True))
    assert isinstance(result, Compiled), result
    return result


def test_a_plan_warns_of_what_a_gateway_cannot_serve() -> None:
    """Two services announce one gRPC service: by path only one of them can be reached, which is no error."""
    result = compiled(CATALOG)
    (warning,) = result.faults
    assert str(warning).startswith("gateways/staging.yaml: warning: shop and user announce the gRPC service user.v1")
    assert result.plan is not None
    assert result.plan.warnings == (warning,)
    assert "staging" in result.resources


@pytest.mark.parametrize(("catalog", "refused"), [(CATALOG, True), (Catalog({"shop": {}, "user": {}}), False)])
def test_strict_makes_errors_of_them(catalog: Catalog, refused: bool) -> None:
    """As of every other warning; without one nothing is refused."""
    result = compiled(catalog, strict=True)
    assert [fault.severity for fault in result.faults] == [Severity.ERROR] * refused
    assert (result.resources == {}) == refused


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ({"mesh.yaml": "environment: test\n"}, {"mesh.yaml": "# a comment\nenvironment: test\n"}, False),
        ({}, {"mesh.yaml": "environment: production\n"}, False),
        ({"mesh.yaml": "environment: test\n"}, {}, True),
        ({}, {"mesh.yaml": "admin: {port: 9999}\n"}, True),
        ({}, {"mesh.yml": "admin: {port: 9999}\n"}, True),
        ({"mesh.yaml": "an_older_key: 1\n"}, {"mesh.yaml": "environment: test\n"}, True),
    ],
)
def test_a_change_of_what_all_services_share_is_noticed(
    before: dict[str, str], after: dict[str, str], changes: bool
) -> None:
    """Also where it is in the bootstraps alone, and where the former file cannot be read; not by its wording."""
    base = zlib.compress(msgspec.json.encode(before))
    document = msgspec.json.encode({"files": FILES | after, "unproven": True})
    result = work(Compile(document, CATALOG, base_files=base))
    assert isinstance(result, Compiled), result
    assert result.changes_mesh is changes
    assert work(CompareMesh(base, zlib.compress(msgspec.json.encode(after)))) == Shown(b"true" if changes else b"false")


def test_damaged_files_of_the_revision_in_force_do_not_prevent_the_next_one() -> None:
    """They count as different."""
    result = work(Compile(msgspec.json.encode({"files": FILES}), CATALOG, base_files=b"damaged"))
    assert isinstance(result, Compiled), result
    assert (result.changes_mesh, result.resources != {}) == (True, True)


def test_registryctl_waits_for_as_long_as_the_registry_works() -> None:
    """Behind as many jobs as may wait, and for the processes to end: who gave up would not know what was applied."""
    assert APPLY_TIMEOUT > compiler._MAX_WAITING * (compiler._TIMEOUT + compiler._END_TIMEOUT)
