"""Outlier detection that ejects nobody at today's size is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshconfig.ejection import ejects_none
from meshconfig.position import Severity
from meshconfig.repository import read
from meshconfig.resource import Catalog
from meshconfig.snapshot import catalog_findings

FILES = {
    "services/web.yaml": (
        "service: web\ndependencies:\n- service: pair\n- service: trio\n- service: alone\n- service: gone\n"
        "- service: many\n  outlier_detection: {max_percent: 10}\n- service: none\n  outlier_detection: null\n"
        "- {name: mail, address: 'mail.example:25'}\n"
    ),
    "services/api.yaml": "service: api\ndependencies:\n- service: pair\n",
    "gateways/staging.yaml": (
        "listen: {port: 50051}\nselect: {metadata: {tier: web}}\n"
        "defaults: {outlier_detection: {max_percent: 5}}\nhosts: '{service}.example'\n"
    ),
    "edges/www.yaml": "listen: {port: 80}\nsites: [{hosts: [a.example], routes: [{prefix: /, service: two}]}]\n",
}
ENDPOINTS = {"pair": 2, "trio": 3, "alone": 1, "gone": 0, "many": 9, "none": 2, "front": 7, "two": 2}


def test_each_place_that_limits_it_is_told_once_with_the_services() -> None:
    """Of two endpoints one is 50 %; the built-in 34 ejects it of three. A single one has nobody beside it."""
    configuration, faults = read(FILES)
    assert configuration is not None, faults
    findings = catalog_findings(configuration, Catalog({"front": {"tier": ("web",)}}, {}, ENDPOINTS))
    begin, middle = "warning: Outlier detection cannot eject at today's size: of", "one endpoint is more than the"
    pairs = f"{begin} pair (2 endpoints), two (2 endpoints) {middle} built-in max_percent 34. Write max_percent: 50"
    front = f"{begin} front (7 endpoints) {middle} max_percent 5. Write max_percent: 15"
    many = f"{begin} many (9 endpoints) {middle} max_percent 10. Write max_percent: 12"
    assert [str(finding) for finding in findings] == [
        f"mesh.yaml: {pairs}, or have more endpoints.",
        f"gateways/staging.yaml:3:45: {front}, or have more endpoints.",
        f"services/web.yaml:8:36: {many}, or have more endpoints.",
    ]
    # A service that scales in must not stop an apply that is strict.
    assert all(finding.severity is Severity.WARNING and finding.inherent for finding in findings)


@pytest.mark.parametrize(
    ("endpoints", "percent", "none"),
    [(3, 33, True), (3, 34, False), (2, 49, True), (2, 50, False), (1, 1, False), (0, 1, False), (10, 10, False)],
)
def test_one_endpoint_may_be_as_large_a_share_as_is_allowed(endpoints: int, percent: int, none: bool) -> None:
    """As measured with Envoy 1.40: 33 % ejects nobody of three, 34 % one."""
    assert ejects_none(endpoints, percent) is none


@given(endpoints=st.integers(2, 100_000))
def test_the_advice_helps(endpoints: int) -> None:
    """The percentage that a warning proposes ejects one of as many endpoints."""
    assert not ejects_none(endpoints, -(-100 // endpoints))
