"""Which registrars are asked, and what becomes of an errand as time passes."""

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from registry.core.errands import (
    MAX_PER_MINUTE,
    StoredErrand,
    check_all,
    in_words,
    outcome_in_words,
    spare_seconds,
)
from registry.errors import InvalidError
from registryctl.errands import SHOWN
from wire.errand import RESULTS, Arguments, Clusters, Config, ErrandResult, LogLevel, Tap, TapResult, Trace

ERRAND = StoredErrand(
    id="1",
    service="shop",
    address="10.0.0.1",
    port=80,
    instance_id="i",
    arguments=Clusters(),
    callee="",
    reason="",
    actor="ann",
    now=100.0,
    asked_at=100.0,
    collect_until=115.0,
    answer_seconds=15.0,
)


@pytest.mark.parametrize(
    ("changes", "state", "explained"),
    [
        ({}, "asked", ""),
        ({"now": 115.0}, "asked", ""),
        ({"now": 115.1}, "not_collected", "did not ask for errands within 15 s"),
        # A step back of PostgreSQL's clock: a small one changes nothing; after a large one nobody knows its age.
        ({"now": 95.0}, "asked", ""),
        ({"now": 94.9}, "not_collected", "clock was set back"),
        ({"collected_at": 110.0, "now": 104.0}, "not_answered", "clock was set back"),
        ({"collected_at": 110.0, "now": 94.0, "result": b"{}"}, "answered", ""),
        ({"collected_at": 110.0, "now": 124.9}, "collected", ""),
        ({"collected_at": 110.0, "now": 125.0}, "not_answered", "has not answered within 15 s"),
        ({"collected_at": 110.0, "now": 111.0, "ended_at": 111.0, "lost": "was restarted"}, "lost", "was restarted"),
        ({"collected_at": 110.0, "now": 900.0, "ended_at": 111.0, "result": b"{}"}, "answered", ""),
        # A result that came too late is one all the same.
        ({"collected_at": 110.0, "ended_at": 111.0, "lost": "was restarted", "result": b"{}"}, "answered", ""),
    ],
)
def test_the_state_of_an_errand_follows_from_its_times(changes: dict[str, Any], state: str, explained: str) -> None:
    """Nobody has to note that a time is over; where there is no result, a sentence says why."""
    errand = replace(ERRAND, **changes)
    assert errand.state == state
    assert errand.over == (state not in ("asked", "collected"))
    assert explained in errand.explanation
    assert bool(errand.explanation) == bool(explained)


def test_errands_of_a_time_to_come_are_not_counted() -> None:
    """PostgreSQL's clock was set back an hour; no wait is longer than a minute."""
    assert spare_seconds([-3_600.0] * 6) == 0
    assert spare_seconds([-5.0] * 6) == 60.0


@given(st.lists(st.floats(0, 600)))
def test_a_registrar_is_asked_six_times_in_any_minute(ages: list[float]) -> None:
    """It may be asked where the minute before has fewer than six; else after the seconds that are said."""
    seconds = spare_seconds(ages)
    recent = sum(age < 60 for age in ages)
    assert (seconds == 0) == (recent < MAX_PER_MINUTE)
    assert sum(age + seconds < 60 for age in ages) < MAX_PER_MINUTE


def test_words_for_the_history_have_what_was_asked_and_nothing_that_was_seen() -> None:
    """The path without a query, which an operator may have pasted."""
    tap = Tap(seconds=10, status="5xx", method="POST", path="/pay?token=SECRET", caller="checkout")
    assert in_words(tap, "shop") == "tap for 10 s, 1 % of requests, status 5xx, method POST, path /pay, to shop"
    assert in_words(Config("routes", "egress")) == "config routes egress"
    assert in_words(LogLevel({"http": "debug"}, 60)) == "log-level http=debug for 60 s"
    seen = ErrandResult("done", tap=TapResult("shop", 10.0, 1.0, [Trace("GET", "/reset/SECRET")]))
    assert outcome_in_words(tap, seen) == "tap: 1 requests shown"
    assert outcome_in_words(tap, ErrandResult("refused", "no filter")) == "tap refused: no filter"


def test_all_registrars_are_asked_after_a_word_more() -> None:
    """The name of the service; otherwise 20 of them."""
    assert (check_all("shop", "", everything=False), check_all("shop", "shop", everything=True)) == (20, 200)
    with pytest.raises(InvalidError, match="confirm has to say shop"):
        check_all("shop", "yes", everything=True)


def test_a_result_fits_its_verb_alone() -> None:
    """A registrar answers what was asked."""
    done = ErrandResult("done", tap=TapResult("shop", 10.0, 1.0))
    assert done.fits(Tap())
    assert not done.fits(Clusters())
    assert not ErrandResult("done").fits(Tap())
    assert ErrandResult("failed", "gone").fits(Tap())
    assert not ErrandResult("failed", tap=done.tap).fits(Tap())


def test_every_verb_has_a_result_that_is_shown_and_documented() -> None:
    """A verb that lacks one of them would only be noticed when somebody asks for it."""
    verbs = [str(arguments.__struct_config__.tag) for arguments in get_args(Arguments)]
    fields = sorted(verb.replace("-", "_") for verb in verbs)
    assert fields == sorted(RESULTS) == sorted(SHOWN)
    documented = (Path(__file__).parents[4] / "docs" / "errands.md").read_text()
    assert [verb for verb in verbs if f"\n| `{verb}` |" not in documented] == []
