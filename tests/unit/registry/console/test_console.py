"""The parts of the console that are rules: counts over time, words for times, searching and paging."""

import re
from pathlib import Path

import pytest
from unit.registry import making

import registry.console
from registry.console.listing import SIZE, matches, page_of
from registry.console.page_tag import page_tag
from registry.console.times import ago, iso, span, utc
from registry.core.chart_marks import chart_marks
from registry.core.history import RecordedEvent
from registry.core.status_counts import status_counts

TEMPLATES = Path(registry.console.__file__).parent / "templates"


def event(at: float, address: str, status: str, kind: str = "health") -> RecordedEvent:
    """Return an event that left an endpoint in a status."""
    return RecordedEvent(
        transaction=int(at),
        id=int(at),
        at=at,
        service="shop",
        address=address,
        port=80,
        instance_id="i-1",
        kind=kind,
        reason="",
        actor="",
        status=status,
        version=1,
    )


def test_counts_are_steps_from_what_stood_at_the_begin() -> None:
    """Each event moves its endpoint from one status to another; a removal takes it out."""
    standing = [event(1, "10.0.0.1", "HEALTHY"), event(2, "10.0.0.2", "HEALTHY")]
    events = [event(12, "10.0.0.1", "UNHEALTHY"), event(15, "10.0.0.2", "REMOVED"), event(15, "10.0.0.3", "HEALTHY")]
    counts = status_counts(standing, events, 10, 20)
    assert counts.at == [10, 12, 15, 20]
    assert counts.statuses["HEALTHY"] == [2, 1, 1, 1]
    assert counts.statuses["UNHEALTHY"] == [0, 1, 1, 1]
    assert sum(counts.statuses["DRAINING"] + counts.statuses["TIMEOUT"] + counts.statuses["DEGRADED"]) == 0


def test_counts_have_silent_endpoints_of_their_own() -> None:
    """A silent endpoint is no HEALTHY one in the chart, from its suspicion until it is heard of or lapses."""
    events = [
        event(11, "10.0.0.1", "SILENT", "suspected"),
        event(12, "10.0.0.1", "SILENT", "overridden"),
        event(13, "10.0.0.1", "HEALTHY", "returned"),
    ]
    counts = status_counts([event(1, "10.0.0.1", "HEALTHY")], events, 10, 20)
    assert (counts.statuses["HEALTHY"], counts.statuses["SILENT"]) == ([1, 0, 0, 1, 1], [0, 1, 1, 0, 0])


def test_counts_pass_over_events_of_no_endpoint_and_late_clocks() -> None:
    """A pause changes no endpoint; an event after the end, by a clock that is ahead, ends the steps."""
    paused = RecordedEvent(3, 3, 12, "shop", None, None, "", "paused", "", "", "", 0)
    counts = status_counts([], [paused, event(21, "10.0.0.1", "HEALTHY")], 10, 20)
    assert (counts.at, counts.statuses["HEALTHY"]) == ([10, 21, 21], [0, 1, 1])


def test_an_errand_changes_no_count() -> None:
    """It is asked of the registrar of an endpoint, whose status stays what it was."""
    standing = [event(1, "10.0.0.1", "HEALTHY")]
    errands = [event(12, "10.0.0.1", "", "errand_asked"), event(13, "10.0.0.1", "", "errand_answered")]
    counts = status_counts(standing, errands, 10, 20)
    assert (counts.at, counts.statuses["HEALTHY"]) == ([10, 20], [1, 1])


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (7260, "2 h 1 min"),
        (86_400, "1 d"),
        (187_200, "2 d 4 h"),
    ],
)
def test_a_length_of_time_has_two_units_at_most(seconds: float, said: str) -> None:
    """The two largest, cut and not rounded, so that it never says more than there is."""
    assert (span(seconds), ago(1000 - seconds, 1000)) == (said, f"{said} ago")


def test_each_page_that_updates_itself_has_its_live_block() -> None:
    """An update has nothing else; a page without the block would empty itself after two seconds."""
    templates = [path.read_text() for path in sorted(TEMPLATES.glob("*.html"))]
    openings = [re.findall(r'<div id="live" .*', text) for text in templates if "hx-get" in text]
    assert len(openings) >= 8
    assert [lines for lines in openings if len(lines) != 1 or not lines[0].endswith(">{% block live %}")] == []


def test_the_words_of_times_make_no_new_page() -> None:
    """Everything else does, the moment that is meant included."""
    row = '<td><time datetime="{}" data-words="ago">{}</time> {}</td>'.format
    tag = page_tag(row("12:00", "3 s ago", "HEALTHY"))
    assert page_tag(row("12:00", "5 s ago", "HEALTHY")) == tag
    assert page_tag(row("12:01", "3 s ago", "HEALTHY")) != tag
    assert page_tag(row("12:00", "3 s ago", "UNHEALTHY")) != tag


def test_moments_are_in_utc() -> None:
    """Whatever the machine's zone, people compare them with logs of other machines."""
    assert utc(1_763_600_000.7) == "2025-11-20 00:53:20 UTC"
    assert iso(1_763_600_000.25) == "2025-11-20T00:53:20.250+00:00"


def test_a_search_wants_every_word_somewhere() -> None:
    """In any of the texts, in any case."""
    assert matches("", "shop")
    assert matches("ECS 2.1", "ecs-task-1", "2.14.0")
    assert not matches("ecs 3.1", "ecs-task-1", "2.14.0")


def test_a_page_beyond_the_end_is_the_last_one() -> None:
    """The list may have become shorter since the link to the page was made."""
    items = list(range(SIZE + 1))
    first, last, beyond = (page_of(items, number) for number in (1, 2, 9))
    assert (list(first.items), first.number, first.last, first.total) == (items[:SIZE], 1, 2, SIZE + 1)
    assert (list(last.items), last) == (items[SIZE:], beyond)
    assert (page_of([], 3).items, page_of([], 3).number) == ([], 1)


def test_a_chart_is_marked_where_something_happened() -> None:
    """Drains, lost endpoints and the guard by events, deploys by what is listed; much of a kind at once is one mark."""
    events = [event(1010, f"10.0.0.{number}", "TIMEOUT", "lapsed") for number in range(1, 5)]
    events += [
        event(1100, "10.0.0.5", "HEALTHY", "suspected"),
        event(1200, "10.0.0.6", "DRAINING", "overridden"),
        event(1300, "10.0.0.6", "HEALTHY", "overridden"),
        event(1400, "10.0.0.7", "DRAINING", "drained"),
        event(5000, "10.0.0.8", "TIMEOUT", "lapsed"),
    ]
    made = [
        making.endpoint(registration=making.registration(revision=revision), registered_at=at)
        for revision, at in (("1.0", 500), ("1.1", 1500), ("1.1", 1600), ("", 1700), ("1.2", 4700))
    ]
    assert [(mark.at, mark.kind, mark.words) for mark in chart_marks(events, made, 1000, 4600)] == [
        (1010, "lost", "10.0.0.1:80, 10.0.0.2:80 and 2 more lost (lease expired)"),
        (1100, "guard", "10.0.0.5:80 kept by the expiry guard"),
        (1200, "drain", "10.0.0.6:80 drained"),
        (1400, "drain", "10.0.0.7:80 drained"),
        (1500, "deploy", "new revision 1.1"),
    ]
    paused = RecordedEvent(3, 3, 12, "shop", None, None, "", "paused", "", "", "", 0)
    assert [mark.words for mark in chart_marks([paused], [], 10, 20)] == ["expiry paused"]


def test_every_page_that_updates_itself_updates_all_that_an_update_has() -> None:
    """A banner that stays as it was would speak of silent endpoints that are back, and not of new ones."""
    update = (TEMPLATES / "base.html").read_text().partition("{% else %}")[0]
    parts = set(re.findall(r'^<\w+ id="(\w+)"', update, re.MULTILINE)) - {"live"}
    assert {"notice", "banner"} <= parts
    updated = {
        path.name: set(re.findall(r"#(\w+):innerMorph", path.read_text()))
        for path in TEMPLATES.glob("*.html")
        if 'id="live"' in path.read_text() and path.name != "base.html"
    }
    assert len(updated) > 6
    assert {name: sent for name, sent in updated.items() if sent != parts} == {}
