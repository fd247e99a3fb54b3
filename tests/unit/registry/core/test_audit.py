"""The queue of the audit: what is an entry, what is counted, and how much waits at most."""

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from registry.core.audit import (
    COUNT_INTERVAL,
    MAX_BULK_WAITING,
    MAX_REPEATED,
    MAX_REPEATED_OF_PEER,
    MAX_WAITING,
    REPEAT_INTERVAL,
    AuditEntry,
    AuditQueue,
    Decision,
    cleaned,
)

ENTRY = AuditEntry(0.0, "token:ci", "abc", "10.0.0.5", "operate", "shop", "", "overridden", "allowed", "", "r-1")
REFUSAL = msgspec.structs.replace(ENTRY, action="", decision="refused", verb="register", reason="no grant")


def entry(decision: Decision, peer: int, service: int, verb: str = "register") -> AuditEntry:
    """Return an entry of a peer about a service, by their numbers."""
    return msgspec.structs.replace(REFUSAL, decision=decision, peer=f"10.0.0.{peer}", service=f"s-{service}", verb=verb)


class Table:
    """Stores what a queue hands out, as the writer does with PostgreSQL."""

    def __init__(self, queue: AuditQueue) -> None:
        self.queue = queue
        self.rows: list[AuditEntry] = []

    def write(self, now: float) -> None:
        """Store everything that waits, and the counts."""
        while batch := self.queue.batch(7):
            self.rows.extend(each for _, each in batch)
            self.queue.settle(batch, range(len(self.rows) - len(batch), len(self.rows)), now)
        while counts := self.queue.counts(now, 5):
            for pending, count in counts:
                assert pending.id is not None
                self.rows[pending.id] = msgspec.structs.replace(self.rows[pending.id], count=count)
            self.queue.settle_counts(counts, now)


def test_writes_are_entries_of_their_own_and_the_same_refusal_is_counted() -> None:
    """Two writes that are alike are two entries; a hundred refusals of one minute are one, and then another."""
    queue = AuditQueue()
    table = Table(queue)
    assert [queue.add(ENTRY, now) for now in (0.0, 0.1)] == [True, True]
    assert [queue.add(REFUSAL, 0.2 + number / 10) for number in range(100)] == [True] + [False] * 99
    table.write(11.0)
    assert [(each.decision, each.count) for each in table.rows] == [("allowed", 1), ("allowed", 1), ("refused", 100)]
    queue.add(REFUSAL, 59.0)
    table.write(59.5)
    assert table.rows[-1].count == 101
    assert queue.add(REFUSAL, 0.2 + REPEAT_INTERVAL)
    table.write(61.0)
    assert [each.count for each in table.rows[2:]] == [101, 1]


def test_causes_of_refusals_are_told_apart() -> None:
    """An endpoint of another owner and a missing grant are two refusals, though all else is equal."""
    queue = AuditQueue()
    assert queue.add(REFUSAL, 0.0, "owned")
    assert queue.add(REFUSAL, 0.0, "forbidden")
    assert len(queue) == 2


@given(
    st.lists(
        st.tuples(
            st.floats(0, 3 * COUNT_INTERVAL),
            st.sampled_from(["refused", "would_refuse", "failed", "allowed", None]),
            st.integers(1, 3),
            st.integers(1, 60),
        ),
        max_size=300,
    )
)
def test_nothing_is_counted_twice_or_forgotten(steps: list[tuple[float, Decision | None, int, int]]) -> None:
    """The counts of the rows are what happened, by decision, in whatever order; at None what waits is stored."""
    queue = AuditQueue()
    table = Table(queue)
    now, happened = 0.0, Counter[str]()
    for wait, decision, peer, service in steps:
        now += wait
        if decision is None:
            table.write(now)
        else:
            happened[decision] += 1
            queue.add(entry(decision, peer, service), now)
    table.write(now + REPEAT_INTERVAL)
    counted = Counter[str]()
    for row in table.rows:
        counted[row.decision] += row.count
    assert counted == happened
    assert queue.lost == 0


def test_different_refusals_of_one_peer_are_counted_together_beyond_a_number() -> None:
    """A peer that makes names up has some rows of a minute, and the rest of them is one row without a name."""
    queue = AuditQueue()
    table = Table(queue)
    for number in range(1_000):
        queue.add(entry("refused", 1, number), 0.0)
    queue.add(entry("refused", 2, 1), 0.0)
    table.write(1.0)
    rest = [row for row in table.rows if not row.service]
    assert len(table.rows) == MAX_REPEATED_OF_PEER + 2
    assert [(row.peer, row.count) for row in rest] == [("10.0.0.1", 1_000 - MAX_REPEATED_OF_PEER)]


def test_refusals_of_many_peers_are_bounded_too() -> None:
    """Many peers together have no more rows than all may have in a minute; all of them are counted."""
    queue = AuditQueue()
    table = Table(queue)
    for peer in range(2_000):
        queue.add(entry("refused", peer, 1), 0.0)
    table.write(1.0)
    assert len(table.rows) == MAX_REPEATED + 1
    assert sum(row.count for row in table.rows) == 2_000


def test_a_full_queue_loses_and_never_grows() -> None:
    """While nothing is stored, registrations leave room for the acts of operators, and both are bounded."""
    queue = AuditQueue()
    registration = msgspec.structs.replace(ENTRY, verb="register")
    for _ in range(MAX_WAITING):
        queue.add(registration, 1.0)
    assert (len(queue), queue.lost) == (MAX_BULK_WAITING, MAX_WAITING - MAX_BULK_WAITING)
    for _ in range(MAX_WAITING):
        queue.add(ENTRY, 2.0)
    assert (len(queue), queue.lost_at) == (MAX_WAITING, 2.0)
    assert queue.add(REFUSAL, 3.0)
    assert not queue.add(REFUSAL, 4.0), "a refusal that was lost is lost once a minute"
    Table(queue).write(5.0)
    queue.add(ENTRY, 6.0)
    assert len(queue) == 1


def test_an_entry_that_is_refused_is_lost_alone() -> None:
    """PostgreSQL's refusal of one row takes that row out, and no other."""
    queue = AuditQueue()
    for _ in range(3):
        queue.add(ENTRY, 0.0)
    queue.settle(queue.batch(2), [1, None], 0.0)
    assert (len(queue), queue.lost) == (1, 1)


TOKEN = "hct_abcdefgh23456722_" + "s3cr3t-S3CR3T_s3cr3t-S3CR3T_s3cr3t-S3CR3T_a"


@given(st.text(), st.text(max_size=600), st.sampled_from(["service", "reason", "principal", "endpoint", "request_id"]))
def test_texts_are_printable_short_and_without_tokens(before: str, after: str, field: str) -> None:
    """Whatever a client writes where a name belongs, no token and no control character gets into the audit."""
    made = cleaned(msgspec.structs.replace(ENTRY, **{field: f"{before} {TOKEN} {after}"}))
    text = getattr(made, field)
    assert text.isprintable()
    assert len(text) <= 500
    assert "s3cr3t" not in text.lower()
