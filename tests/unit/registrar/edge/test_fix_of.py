"""What the log says to do about a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.edge.asker import fix_of


@pytest.mark.parametrize(
    ("status", "mentions"),
    [
        (400, "node"),
        (401, "REGISTRAR_TOKEN"),
        (403, "grant discover"),
        (404, "upgrade"),
        (413, "limit"),
        (422, "node"),
    ],
)
def test_each_status_has_its_own_fix(status: int, mentions: str) -> None:
    """A grant mends no token, no size and no name."""
    assert mentions in fix_of(status)
    assert ("grant" in fix_of(status)) == (status == 403)


@given(st.integers(300, 599))
def test_any_status(status: int) -> None:
    """A proxy's refusal is mended at the proxy, and no status lacks a fix."""
    assert fix_of(status)
    assert "proxy" in fix_of(status, from_registry=False)
