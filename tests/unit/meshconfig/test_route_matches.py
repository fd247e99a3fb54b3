"""Conditions and rewrites of routes, as Envoy's RouteMatch and RouteAction say them."""

import json
from typing import Any

import pytest

from meshconfig.definition.dependency import Dependency
from meshconfig.definition.route import HeaderMatch, Rewrite, Route
from meshconfig.effective import Caller, Configuration
from meshconfig.resource import Catalog
from meshconfig.snapshot import compile_mesh


def _route(**fields: Any) -> dict[str, Any]:
    dependency = Dependency(name="shop", service="shop", routes=(Route(retry=None, **fields),))
    configuration = Configuration(callers={"web": Caller("web", (dependency,))})
    document = json.loads(compile_mesh(configuration, Catalog()).nodes["web"]["routes"]["default"].body)
    return document["virtual_hosts"][0]["routes"][0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"exact": "a"}, {"string_match": {"exact": "a"}}),
        ({"regex": "a+"}, {"string_match": {"safe_regex": {"regex": "a+"}}}),
        ({"range": (100, 200)}, {"range_match": {"start": 100, "end": 200}}),
        ({"present": False}, {"present_match": False}),
        ({"prefix": "bot", "invert": True}, {"string_match": {"prefix": "bot"}, "invert_match": True}),
    ],
)
def test_a_condition_on_a_header(condition: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each kind has its field, and the inverted one a mark beside it."""
    match = _route(prefix="/", headers=(HeaderMatch(name="x", **condition),))["match"]
    assert match["headers"] == [{"name": "x", **expected}]


def test_query_parameters_are_matched_exactly() -> None:
    """They stand in the order of their names, so that equal definitions are equal bytes."""
    match = _route(prefix="/", query={"b": "2", "a": "1"})["match"]
    assert match["query_parameters"] == [
        {"name": "a", "string_match": {"exact": "1"}},
        {"name": "b", "string_match": {"exact": "2"}},
    ]


def test_an_expression_matches_the_whole_path() -> None:
    """It stands in place of path and prefix."""
    assert _route(regex="/v[0-9]+/.*")["match"] == {"safe_regex": {"regex": "/v[0-9]+/.*"}}


@pytest.mark.parametrize(
    ("match", "rewrite", "expected"),
    [
        ({"prefix": "/store/"}, Rewrite(prefix="/"), {"prefix_rewrite": "/"}),
        (
            {"path": "/a"},
            Rewrite(path="/b\\1"),
            {"regex_rewrite": {"pattern": {"regex": "^[^?]*"}, "substitution": "/b\\\\1"}},
        ),
        (
            {"prefix": "/a"},
            Rewrite(path="/b"),
            {"regex_rewrite": {"pattern": {"regex": "^[^?]*"}, "substitution": "/b"}},
        ),
    ],
)
def test_a_rewrite_replaces_the_prefix_or_the_whole_path(
    match: dict[str, Any], rewrite: Rewrite, expected: dict[str, Any]
) -> None:
    """A backslash is a character like others, and no number of a group."""
    action = _route(**match, rewrite=rewrite)["route"]
    assert {key: value for key, value in action.items() if key.endswith("_rewrite")} == expected
