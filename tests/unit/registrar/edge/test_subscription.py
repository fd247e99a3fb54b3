"""What the polls of an Envoy say of it."""

import msgspec

from registrar.edge.subscription import OFFERED_AGAIN_AFTER, Subscription
from wire.edge_assignments import MAX_TOKEN, TakenVersion
from wire.node import Node

NODE = Node("envoy-1", "web", "za", "1.40.0")


def test_what_it_took_is_reported() -> None:
    """With the times by which the registry tells an Envoy that starts from others, and a slow one from a silent one."""
    subscription = Subscription(NODE)
    subscription.poll("", 10.0)
    subscription.answer("db:5", 10.0)
    subscription.poll("db:5", 10.25)
    assert subscription.report("shop", "", NODE, 11.0) == TakenVersion(
        "envoy-1", "shop", "db:5", envoy="1.40.0", offered="db:5", started_ago=1.0, pause=0.25
    )
    subscription.answer("", 40.0)
    subscription.poll("db:5", 40.25)
    assert subscription.report("shop", "", NODE, 41.0).offered == ""


def test_the_node_is_named_where_it_is_not_the_questions() -> None:
    """Cluster and zone are those of the question unless said."""
    report = Subscription(NODE).report("shop", "", Node("envoy-2", "other", "zb"), 1.0)
    assert (report.node, report.cluster, report.zone) == ("envoy-1", "web", "za")


def test_a_version_of_any_length_is_one_that_the_registry_reads() -> None:
    """One poll with a version that no registry gave must not make a question of all others refused."""
    subscription = Subscription(NODE)
    subscription.poll("v" * 5000, 1.0)
    sent = msgspec.json.encode(subscription.report("shop", "", NODE, 2.0))
    assert msgspec.json.decode(sent, type=TakenVersion).version == "v" * MAX_TOKEN


def test_refusals_are_counted_and_not_offered_again() -> None:
    """An Envoy that brings what it had before has refused the offer."""
    subscription = Subscription(NODE)
    subscription.poll("db:7.1@*", 1.0)
    subscription.answer("db:7.2@*", 1.0)
    assert not subscription.has_refused("db:7.2@*", 1.1)
    subscription.poll("db:7.1@*", 1.2)
    assert subscription.has_refused("db:7.2@*", 1.2)
    assert not subscription.has_refused("db:7.3@*", 1.2)
    assert not subscription.has_refused("db:7.2@*", 1.2 + OFFERED_AGAIN_AFTER)
    report = subscription.report("*", "t", NODE, 2.2)
    assert (report.refusals, report.refused_ago, report.offered) == (1, 1.0, "db:7.2@*")


def test_one_lost_answer_to_a_starting_envoy_is_no_refusal() -> None:
    """It may have been started again; the second time it counts."""
    subscription = Subscription(NODE)
    for moment in (1.0, 1.2):
        subscription.poll("", moment)
        assert not subscription.has_refused("db:7.2@*", moment)
        subscription.answer("db:7.2@*", moment)
    subscription.poll("", 1.4)
    assert subscription.has_refused("db:7.2@*", 1.4)
