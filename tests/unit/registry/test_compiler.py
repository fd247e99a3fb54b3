"""The compiler's work on what somebody wants to apply."""

import msgspec
import pytest

from meshconfig.position import Severity
from meshconfig.resource import Catalog
from registry.compiler.job import Compile, Compiled
from registry.compiler.work import work

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
