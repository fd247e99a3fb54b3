"""What a process remembers of its subscribers, in time that is given to it."""

import pytest

from registry.core.subscriber import SUBSCRIBER_TIMEOUT, Subscribers, Subscription
from wire.node import ANONYMOUS, Node

NODE = Node("i-1", "web", "zone-a", "1.40.0")
NOW = 1000.0


def polls(subscription: Subscription, *brought: str, offered: str, every: float = 1.0) -> None:
    """Let a subscription poll, each poll answered 200."""
    now = subscription.seen_at
    for version_info in brought:
        now += every
        subscription.poll(version_info, now)
        subscription.answer(200, offered, now)


def test_refusals_are_counted_until_one_is_taken() -> None:
    """The same version_info after a 200 with another is a refusal; anything else ends the row."""
    subscription = Subscription(("i-1", "a", ("shop",), "v3"), NODE, 0.0)
    polls(subscription, "db:6", "db:6", "db:6", offered="db:7")
    assert (subscription.refusals, subscription.refused_since) == (2, 2.0)
    polls(subscription, "db:7", offered="db:8")
    assert subscription.refusals == 0
    polls(subscription, "db:7", offered="db:8")
    assert subscription.refusals == 1


def test_a_304_is_no_offer() -> None:
    """Who holds a version for long and is told so refuses nothing."""
    subscription = Subscription(("i-1", "a", ("shop",), "v3"), NODE, 0.0)
    for moment in range(1, 9):
        subscription.poll("db:7", moment)
        subscription.answer(304, "", moment)
    assert subscription.refusals == 0


def test_the_usual_pause_is_learnt() -> None:
    """From answer to poll, smoothed: it converges on the pace that the subscriber has."""
    subscription = Subscription(("i-1", "a", ("shop",), "v3"), NODE, 0.0)
    polls(subscription, *["db:7"] * 40, offered="db:7", every=3.0)
    assert subscription.pause == pytest.approx(3.0)


def forget(known: Subscribers, now: float) -> None:
    """Drop all who are silent for too long."""
    for subscription in known:
        known.forget(subscription, now)


def test_a_full_table_takes_nobody_new_and_forgets_nobody_who_lives() -> None:
    """Pairs of a node and a name are bounded; who comes too late is answered, counted, and not remembered."""
    known = Subscribers(max_sightings=100)
    first = known.find(NODE, "first", ("shop",), "v3", 0.0)
    for number in range(1, 500):
        known.find(Node(f"made-up-{number}"), "a", ("shop", "cart"), "v3", number)
    assert (known.sightings, len(known)) == (99, 50)
    assert known.take_refused() == 2 * (499 - 49)
    assert known.take_refused() == 0
    assert known.find(NODE, "first", ("shop",), "v3", 500.0) is first
    late = known.find(NODE, "late", ("shop", "cart"), "v3", 500.0)
    assert (late.remembered, [subscription.address for subscription in known.of("cart") if subscription is late]) == (
        False,
        [],
    )


def test_nothing_is_concluded_for_a_quarter_of_an_hour_after_a_refusal() -> None:
    """The seconds since the last refusal are known until they do not matter any more, and room is made by silence."""
    known = Subscribers(max_sightings=1)
    known.find(NODE, "first", ("shop",), "v3", 0.0)
    assert known.refused_ago(1.0) is None
    known.find(NODE, "second", ("shop",), "v3", 10.0)
    assert (known.refused_ago(11.0), known.refused_ago(10.0 + SUBSCRIBER_TIMEOUT)) == (1.0, SUBSCRIBER_TIMEOUT)
    assert known.refused_ago(10.1 + SUBSCRIBER_TIMEOUT) is None
    forget(known, SUBSCRIBER_TIMEOUT + 1)
    assert known.find(NODE, "second", ("shop",), "v3", SUBSCRIBER_TIMEOUT + 1).remembered
    assert known.sightings == 1


def test_sixteen_names_of_a_poll_are_remembered() -> None:
    """More than an Envoy asks for costs no more memory; it is counted, because their subscribers are not known."""
    known = Subscribers()
    names = tuple(f"s-{number}" for number in range(400))
    subscription = known.find(NODE, "a", names, "v3", 0.0)
    assert (subscription.names, known.sightings, known.take_refused()) == (names[:16], 16, 384)
    assert known.find(NODE, "a", names, "v3", 1.0) is subscription
    assert known.refused_ago(1.0) == 0.0


def test_what_a_poll_says_is_kept_short() -> None:
    """128 characters of its version_info for each name, and no name that is longer than a service can be called."""
    known = Subscribers()
    subscription = known.find(NODE, "a", ("shop",), "v3", 0.0)
    subscription.poll("x" * 100_000, 0.0)
    subscription.answer(200, "y" * 100_000, 0.0)
    assert (len(subscription.brought), len(subscription.offered)) == (128, 128)
    assert not known.find(NODE, "a", ("n" * 256,), "v3", 0.0).remembered
    assert known.find(NODE, "a", ("n" * 255,), "v3", 0.0).remembered


def test_who_refuses_is_known_by_what_is_kept() -> None:
    """An endless version_info that is brought again and again is a refusal like a short one."""
    subscription = Subscription(("i-1", "a", ("shop",), "v3"), NODE, 0.0)
    polls(subscription, *["x" * 1000] * 3, offered="db:7")
    assert subscription.refusals == 2


@pytest.mark.parametrize(("node", "api", "names"), [(ANONYMOUS, "v3", ("shop",)), (NODE, "v3", ())])
def test_who_is_no_envoy_is_no_subscriber(node: Node, api: str, names: tuple[str, ...]) -> None:
    """Envoy always has a node id and asks for something; a poll without either is not remembered, nor is it missing."""
    known = Subscribers()
    assert not known.find(node, "a", names, api, 0.0).remembered
    assert (len(known), known.take_refused(), known.refused_ago(0.0)) == (0, 0, None)


def test_the_subscribers_of_a_service_are_found_by_its_name() -> None:
    """Those that ask for it alone or with others, and none any more who is forgotten."""
    known = Subscribers()
    known.find(NODE, "alone", ("shop",), "v3", 0.0)
    known.find(NODE, "other", ("cart",), "v3", 1.0)
    known.find(NODE, "both", ("shop", "ca\0rt"), "v3", 2.0)
    known.find(NODE, "new", ("shop",), "v3", 3.0)

    def of(service: str) -> list[str]:
        return [subscription.address for subscription in known.of(service)]

    assert (of("shop"), of("cart"), of("nobody")) == (["alone", "both", "new"], ["other", "both"], [])
    forget(known, SUBSCRIBER_TIMEOUT + 2.5)
    assert (of("shop"), of("cart"), known.sightings) == (["new"], [], 1)
    forget(known, SUBSCRIBER_TIMEOUT + 4)
    assert (of("shop"), known._by_name, known.sightings) == ([], {}, 0)


def test_the_silent_are_forgotten() -> None:
    """After a quarter of an hour; a client of v1 that asked once, after a minute; who is held, never."""
    known = Subscribers()
    known.find(NODE, "envoy", ("shop",), "v3", 0.0)
    known.find(NODE, "held", ("shop",), "v3", 0.0).held = 1
    known.record_v1("curl", "shop", 0.0)

    def left(now: float) -> list[str]:
        forget(known, now)
        return [subscription.address for subscription in known]

    assert left(59) == ["envoy", "held", "curl"]
    assert left(61) == ["envoy", "held"]
    assert left(SUBSCRIBER_TIMEOUT + 1) == ["held"]


def test_news_is_what_matters_at_once_and_the_rest_in_time() -> None:
    """A new version or a refusal is told at once; that somebody polls on, every quarter of a minute."""
    subscription = Subscription(("i-1", "a", ("shop",), "v3"), NODE, 0.0)
    polls(subscription, "db:7", offered="db:7")
    assert subscription.is_news(1.0)
    subscription.published, subscription.published_at = subscription.substance, 1.0
    polls(subscription, "db:7", offered="db:7")
    assert not subscription.is_news(2.0)
    assert subscription.is_news(17.0)
    polls(subscription, "db:7", offered="db:8")
    assert subscription.is_news(3.0)
