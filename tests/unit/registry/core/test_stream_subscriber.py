"""Who has a stream, and how it keeps up: an ACK is proof, a NACK has words, and nothing is guessed."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from registry.core.stream_subscriber import (
    BEHIND_AFTER,
    SeenRow,
    StreamReport,
    StreamRow,
    Trouble,
    evaluate_stream,
    reports_of,
    reports_of_rows,
    trouble_of,
)
from registry.core.subscriber_status import Evaluation, ServiceVersion, merge_reports

NOW = 1000.0
OURS = ServiceVersion(version=7, since=NOW - 100)


def report(**fields: Any) -> StreamReport:
    """Return a client that has acknowledged version 7, but for what is given."""
    facts: dict[str, Any] = {
        "process": "p",
        "node_id": "i-1",
        "cluster": "web",
        "zone": "zone-a",
        "envoy": "envoy 1.40.0",
        "address": "10.0.0.9",
        "service": "shop",
        "api": "grpc-delta",
        "version_info": "db:7",
        "version": 7,
        "offered": None,
        "status": None,
        "answered_at": None,
        "polled_at": NOW,
        "first_seen": 0.0,
        "held": True,
        "pause": None,
        "refusals": 0,
        "refused_since": None,
    }
    return StreamReport(**facts | fields)


def evaluated(ours: ServiceVersion = OURS, lag: float = 0.0, **fields: Any) -> Evaluation:
    """Return how such a client keeps up."""
    return evaluate_stream(report(**fields), ours, NOW, lag)


def test_an_acknowledged_version_is_current() -> None:
    """Ours, or a newer one that this process has yet to read; and of a service that nobody registered there is none."""
    assert evaluated() == Evaluation("current", "has acknowledged version 7")
    assert evaluated(version=8).reason == "has acknowledged version 8, which this process has yet to read"
    assert evaluated(ServiceVersion(0, NOW), version=None).reason == "the service is not registered"


def test_a_client_that_refuses_says_why() -> None:
    """Until it has accepted something newer than what it has rejected."""
    refusing: dict[str, Any] = {"version": 6, "rejected_version": 7, "error": "malformed IP address: 300.0.0.1"}
    words = "refuses version 7 of shop: malformed IP address: 300.0.0.1"
    assert evaluated(**refusing) == Evaluation("rejected", words)
    assert evaluated(ServiceVersion(8, NOW), **refusing, offered=8, answered_at=NOW).state == "rejected"
    assert evaluated(ServiceVersion(8, NOW), **refusing | {"version": 8}).state == "current"
    assert evaluated(version=None, rejected_version=7).reason == "refuses version 7 of shop: it gave no reason"


def test_behind_is_who_has_not_acknowledged_for_ten_seconds() -> None:
    """What was sent just now is still on its way."""
    assert evaluated(version=6, offered=7, answered_at=NOW - 9).state == "current"
    late = evaluated(version=6, offered=7, answered_at=NOW - 11)
    assert late == Evaluation("behind", "has acknowledged version 6, and has not answered version 7 for 11 s")
    assert evaluated(lag=5.0, version=6, offered=7, answered_at=NOW - 14).state == "current"
    assert evaluated(version=6).reason == "has acknowledged version 6, and version 7 is 100 s old"
    assert evaluated(ServiceVersion(7, NOW - 1), version=None).state == "current"


def test_what_is_too_large_or_not_granted_is_said() -> None:
    """Neither is the client's fault."""
    assert "too large" in evaluated(version=6, oversized=True).reason
    refused = evaluated(version=None, refusal="no grant of token:web allows the verb discover for the service shop")
    assert refused.state == "stuck"
    assert "no grant of token:web" in refused.reason


@given(
    st.integers(0, 9),
    st.none() | st.integers(0, 9),
    st.none() | st.integers(0, 9),
    st.none() | st.integers(0, 9),
    st.floats(0, NOW),
    st.booleans(),
)
def test_who_is_connected_is_never_silent_and_who_has_ours_is_never_behind(
    ours: int, version: int | None, offered: int | None, rejected: int | None, sent_at: float, oversized: bool
) -> None:
    """Whatever else is known; and only what was rejected and not replaced is shown as rejected."""
    fields: dict[str, Any] = {"version": version, "offered": offered, "rejected_version": rejected}
    evaluation = evaluated(ServiceVersion(ours, NOW - 50), answered_at=sent_at, oversized=oversized, **fields)
    assert evaluation.state in ("current", "behind", "rejected")
    assert (evaluation.state == "rejected") == (rejected is not None and rejected > (version or 0))
    if evaluation.state == "behind":
        assert (version or 0) < ours
    gone = evaluated(ServiceVersion(ours, NOW - 50), answered_at=sent_at, held=False, polled_at=NOW - 60, **fields)
    assert gone.state == "silent"
    assert BEHIND_AFTER < 60


def test_of_copies_with_one_id_the_one_in_trouble_is_shown() -> None:
    """And an open stream before one whose process is gone."""
    refusing = report(version=6, rejected_version=7, error="no", process="q")
    assert merge_reports([report(), refusing]) == merge_reports([refusing, report()]) == [refusing]
    gone = report(version=6, rejected_version=7, held=False, process="q")
    assert merge_reports([gone, report()]) == [report()]


ROW = StreamRow(
    "id-1", 3, "p", "i-1", "10.0.0.9", "grpc", "web", "za", "envoy 1.40.0", 1.0, ["shop", "cart"], [Trouble("cart", 6)]
)


def test_another_process_tells_of_what_is_not_current_alone() -> None:
    """The rest has acknowledged everything, as long as that process lives."""
    shop, cart = reports_of(SeenRow(ROW, alive=True, seen_at=NOW))
    assert evaluate_stream(shop, OURS, NOW) == Evaluation("current", "has acknowledged everything that it was sent")
    assert (cart.version, evaluate_stream(cart, OURS, NOW).state) == (6, "behind")
    dead = SeenRow(ROW, alive=False, seen_at=NOW - 30)
    assert {evaluate_stream(each, OURS, NOW).state for each in reports_of(dead)} == {"silent"}
    assert [each.service for each in reports_of(dead, "shop")] == ["shop"]
    assert list(reports_of(dead, "pay")) == []


def test_a_list_that_gets_too_long_has_those_in_trouble() -> None:
    """A list of one service always has all."""
    rows = [SeenRow(ROW, alive=True, seen_at=NOW)] * 3
    assert [each.service for each in reports_of_rows(rows, None, 5)] == ["shop", "cart", "shop", "cart", "cart"]
    assert len(list(reports_of_rows(rows, "shop", 0))) == 3


def test_what_is_told_of_a_trouble_comes_back() -> None:
    """Everything that is shown of it."""
    told = report(version=5, offered=6, answered_at=3.0, rejected_version=6, rejected_at=2.0, error="e", oversized=True)
    row = StreamRow(
        *("id-1", 3, "p", "i-1", "10.0.0.9", "grpc-delta", "web", "zone-a", "envoy 1.40.0", 0.0),
        ["shop"],
        [trouble_of(told)],
    )
    (back,) = reports_of(SeenRow(row, alive=True, seen_at=NOW))
    assert back == report(
        version=5,
        offered=6,
        answered_at=3.0,
        rejected_version=6,
        rejected_at=2.0,
        error="e",
        oversized=True,
        version_info="",
    )
