"""Options of checks and details of results: what is refused, and what is cut."""

import importlib
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar import checks
from registrar.checks.check import Options
from registrar.checks.http import HttpOptions, StatusRange
from registrar.checks.kinds import KINDS
from registrar.checks.result import Outcome, Result
from registrar.checks.tcp import TcpOptions
from registrar.duration import Duration


@given(st.text(max_size=3000))
def test_details_fit_the_wire(text: str) -> None:
    """Whatever an app writes, a detail is one printable line of at most 1,024 characters."""
    detail = Result(Outcome.FAILED, text).detail
    assert len(detail) <= 1024
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in detail)
    detail.encode()


@pytest.mark.parametrize("text", ["", "abc", "99", "600", "300-200", "200-", "-200", "2xx", "²00"])
def test_status_ranges_that_are_none(text: str) -> None:
    """Only one or two numbers from 100 to 599 make a range."""
    with pytest.raises(ValueError, match=r"status range|within"):
        StatusRange.parse(text)


def test_a_timeout_must_be_shorter_than_its_interval() -> None:
    """Checks of one endpoint never overlap; unset, the timeout follows a short interval."""
    with pytest.raises(ValueError, match="shorter than interval"):
        TcpOptions(interval=Duration(1), timeout=Duration(1))
    assert TcpOptions(interval=Duration(0.5)).probe_timeout == 0.25
    assert TcpOptions().probe_timeout == 1.0


def test_every_type_of_check_may_be_named() -> None:
    """A module of options has to be in the union of `registrar.checks.kinds`, by which configurations name them."""
    names = (module.name for module in pkgutil.iter_modules(checks.__path__, "registrar.checks."))
    values = (value for name in names for value in vars(importlib.import_module(name)).values())
    kinds = {value for value in values if isinstance(value, type) and issubclass(value, Options)}
    assert {kind for kind in kinds if "check" in vars(kind)} - {Options} == set(KINDS.values())
    assert KINDS["http"] is HttpOptions
