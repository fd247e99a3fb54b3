"""What the operator's command says beside the answers of Envoys."""

import pytest

from registryctl.errands import show
from registryctl.session import Session
from registryctl.settings import Settings


@pytest.mark.parametrize(
    ("callee", "percent", "words", "other"),
    [
        ("", 1.0, "--percent 10 looks at more, and --all-requests", "Host"),
        ("", 10.0, "fits; --all-requests looks at every request", "--percent"),
        ("", 100.0, "", "--all-requests"),
        ("shop", 100.0, "--caller looks for shop in the Host of requests", "--all-requests"),
        ("shop", 1.0, "`tap web` looks at all that these Envoys see", "``"),
    ],
)
def test_who_finds_no_request_hears_what_would_find_one(
    capsys: pytest.CaptureFixture[str], callee: str, percent: float, words: str, other: str
) -> None:
    """Nothing is named that was done already, and apps may call a service by a name of their own."""
    tap = {"config_id": "shop", "percent": percent, "seconds": 3, "traces": []}
    answer = {
        "service": "web",
        "endpoint": "10.0.0.5:80",
        "verb": "tap",
        "callee": callee,
        "result": {"outcome": "done", "tap": tap},
    }
    assert show(Session(Settings((), 5.0, "ann"), "table"), [answer], "tap", "tap web") == 0
    said = capsys.readouterr()
    assert "0 requests seen at an Envoy in 3 s" in said.out
    assert words in said.err.replace("\n", " ")
    assert other not in said.err
