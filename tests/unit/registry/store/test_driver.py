"""Statements for the driver: made once, asked with parameters by their names."""

import pytest
from sqlalchemy import text

from registry.store.driver import Statement
from registry.store.tables import leases


def test_parameters_come_in_the_order_of_the_statement() -> None:
    """The statement's own constants are among them."""
    asked = Statement(text("SELECT :b, :a, :b, :own").bindparams(own=7))
    assert asked.sql == "SELECT $1, $2, $1, $3::INTEGER"
    assert asked.arguments({"a": 1, "b": 2}) == [2, 1, 7]


@pytest.mark.parametrize(
    "asked",
    [
        Statement(text("SELECT :told, :forgotten")),
        Statement(leases.update(), ["incarnation", "ttl"]),
        Statement(leases.insert(), ["endpoint_id", "ttl"]),
    ],
    ids=["text", "update", "insert"],
)
def test_a_parameter_that_is_forgotten_is_an_error(asked: Statement) -> None:
    """Here, and not one of PostgreSQL's that speaks of its value."""
    with pytest.raises(KeyError):
        asked.arguments({"told": 1, "endpoint_id": 1, "incarnation": 1})
