"""The incremental variant on a stream, rule by rule; rules that both variants share are in test_sotw.py."""

import pytest
from harness.xds_world import CDS, EDS, RDS, Answer, Talk, World

from registry.http2.call import StatusError
from registry.xds.grpc.delta import DeltaStream
from registry.xds.grpc.observer import NoGuard
from registry.xds.grpc.stream import ACK_TIMEOUT, MAX_NAMES
from registry.xds.resources import ResourceType
from wire.node import Node

WORDS = {"code": 3, "message": "malformed IP address"}


def a_talk(*names: str) -> tuple[World, Talk]:
    """Return a world with these services, and a stream to it that has asked for nothing yet."""
    world = World()
    for name in names:
        world.eds.put(name)
    return world, Talk(world, DeltaStream)


def heard(talk: Talk) -> Answer:
    """Return the next answer, which there has to be."""
    answer = talk.hear()
    assert answer is not None
    return answer


def test_only_what_changed_is_sent() -> None:
    """Rule 10: names that do not exist are told once, and sent when they do (go-control-plane#488)."""
    world, talk = a_talk("a", "b")
    talk.change(names=["a", "b", "new"])
    answer = heard(talk)
    assert (answer.resources, answer.removed) == ({"a": 1, "b": 2}, ("new",))
    assert answer.versions == {"a": "db:1", "b": "db:2"}
    talk.change(nonce=answer.nonce)
    world.eds.put("b")
    answer = heard(talk)
    assert (answer.resources, answer.removed) == ({"b": 3}, ())
    talk.change(nonce=answer.nonce)
    world.eds.make_sure()
    assert talk.hear() is None
    world.eds.put("new")
    assert heard(talk).resources == {"new": 4}


def test_what_is_gone_is_told() -> None:
    """Rule 10: also what the client was sent on this stream; once, until it comes back."""
    world, talk = a_talk("a")
    talk.change(names=["a"])
    talk.change(nonce=heard(talk).nonce)
    world.eds.drop("a")
    answer = heard(talk)
    assert answer.removed == ("a",)
    talk.change(nonce=answer.nonce)
    world.eds.make_sure()
    assert talk.hear() is None
    world.eds.put("a")
    assert heard(talk).resources == {"a": 3}


def test_a_name_that_is_asked_for_again_is_sent() -> None:
    """Rule 11: although it did not change; and one that does not exist is told again."""
    _, talk = a_talk("a", "b")
    talk.change(names=["a", "b", "new"])
    talk.change(nonce=heard(talk).nonce)
    talk.change(names=["a", "new"])
    answer = heard(talk)
    assert (answer.resources, answer.removed) == ({"a": 1}, ("new",))


def test_unsubscribed_names_are_silence() -> None:
    """Rule 11: and unknown ones are ignored."""
    world, talk = a_talk("a", "b")
    talk.change(names=["a", "b"])
    talk.change(nonce=heard(talk).nonce, drop=["a", "never"])
    world.eds.put("a")
    assert talk.hear() is None
    world.eds.put("b")
    assert heard(talk).resources == {"b": 4}


@pytest.mark.parametrize(("name", "resources", "removed"), [("a", {"a": 1}, ()), ("never", {}, ("never",))])
def test_a_name_under_a_wildcard_is_answered(name: str, resources: dict[str, int], removed: tuple[str, ...]) -> None:
    """Rule 11: to unsubscribe from it says whether it is among all."""
    world = World()
    world.cds.put("a", "b")
    talk = Talk(world, DeltaStream)
    talk.change(CDS)
    talk.change(CDS, nonce=heard(talk).nonce)
    talk.change(CDS, drop=[name])
    answer = heard(talk)
    assert (answer.resources, answer.removed) == (resources, removed)
    talk.change(CDS, nonce=answer.nonce)
    world.cds.put("a")
    assert heard(talk).resources == {"a": 2}


def test_a_wildcard_ends() -> None:
    """Rule 8: unsubscribed from everything, a client hears of the names alone that it asks for."""
    world = World()
    world.cds.put("a", "b")
    talk = Talk(world, DeltaStream)
    talk.change(CDS, ["*", "a"])
    assert heard(talk).resources == {"a": 1, "b": 1}
    talk.change(CDS, drop=["*"], nonce="1")
    world.cds.put("a", "b", "c")
    assert heard(talk).resources == {"a": 2}
    talk.change(CDS, ["*"], nonce="2")
    assert heard(talk).resources == {"b": 2, "c": 2}


def test_a_name_in_the_first_request_is_no_wildcard() -> None:
    """Rule 8: later requests without names mean nothing."""
    world = World()
    world.cds.put("a", "b")
    talk = Talk(world, DeltaStream)
    talk.change(CDS, ["a"])
    assert heard(talk).resources == {"a": 1}
    talk.change(CDS, nonce="1")
    world.cds.put("b")
    assert talk.hear() is None


def test_the_first_request_is_answered_at_once() -> None:
    """Rule 2: also when there is nothing, because an Envoy waits for it."""
    talk = Talk(World(), DeltaStream)
    talk.change(CDS)
    assert heard(talk) == Answer(CDS, "1", {})


def test_a_client_that_connects_again_hears_what_is_new_to_it() -> None:
    """Rule 12: equal is not sent, older is, and gone is told."""
    _, talk = a_talk("a", "b", "c")
    held = {"a": "db:1", "b": "db:1", "gone": "db:9", "never asked for": "db:1"}
    talk.change(names=["a", "b", "c", "gone"], initial_resource_versions=held)
    answer = heard(talk)
    assert (answer.resources, answer.removed) == ({"b": 2, "c": 3}, ("gone",))


def test_a_client_that_has_everything_hears_nothing() -> None:
    """Rule 12: not a byte; and a change is sent."""
    world, talk = a_talk("a", "b")
    talk.change(names=["a", "b"], initial_resource_versions={"a": "db:1", "b": "db:2"})
    assert talk.hear() is None
    world.eds.put("b")
    assert heard(talk).resources == {"b": 3}


def test_a_replica_that_is_behind_says_nothing() -> None:
    """Decision 10: never something older; it is claimed, and sent once this process knows more."""
    world, talk = a_talk("a")
    talk.change(names=["a"], initial_resource_versions={"a": "db:3"})
    assert talk.hear() is None
    assert world.eds.claims == {"a": 3}
    for _ in range(2):
        world.eds.put("a")
        assert talk.hear() is None, "it is older, or what the client has"
    world.eds.put("a")
    assert heard(talk).resources == {"a": 4}


def test_versions_of_another_database_are_no_versions() -> None:
    """They are compared with nothing."""
    _, talk = a_talk("a")
    talk.change(names=["a"], initial_resource_versions={"a": "other:7"})
    assert heard(talk).resources == {"a": 1}


@pytest.mark.parametrize(("held", "removed"), [("other:3", ()), ("db:9", ()), ("db:1", ("gone",))])
def test_clusters_of_another_process_are_not_removed(held: str, removed: tuple[str, ...]) -> None:
    """A process that is behind, or another control plane, may know them; what this database has dropped is told."""
    world = World()
    world.cds.put("a")
    world.cds.put("a")
    talk = Talk(world, DeltaStream)
    talk.change(CDS, initial_resource_versions={"a": "db:2", "gone": held})
    answer = talk.hear()
    assert (() if answer is None else answer.removed) == removed


def test_a_rejected_version_is_not_sent_again() -> None:
    """Rule 4: the next one is, at once; other names go on."""
    world, talk = a_talk("a", "b")
    talk.change(names=["a"])
    talk.change(nonce=heard(talk).nonce, error_detail=WORDS)
    assert talk.hear() is None
    talk.change(names=["b"])
    answer = heard(talk)
    assert answer.resources == {"b": 2}
    talk.change(nonce=answer.nonce)
    world.eds.make_sure()
    assert talk.hear() is None
    world.eds.put("a")
    assert heard(talk).resources == {"a": 3}


def test_a_rejected_answer_of_many_is_sent_name_by_name() -> None:
    """Rule 4: also the names that it said do not exist are told again."""
    _, talk = a_talk("a", "b")
    talk.change(names=["a", "new", "b"])
    talk.change(nonce=heard(talk).nonce, error_detail=WORDS)
    taken: dict[str, int] = {}
    removed: set[str] = set()
    for _ in range(3):
        answer = heard(talk)
        assert len(answer.resources) <= 1
        taken |= answer.resources
        removed.update(answer.removed)
        talk.change(nonce=answer.nonce)
    assert (taken, removed) == ({"a": 1, "b": 2}, {"new"})
    assert talk.hear() is None


def test_one_answer_is_in_flight() -> None:
    """Rule 17: changes meanwhile are one answer, and ten seconds are the longest."""
    world, talk = a_talk("a")
    talk.change(names=["a"])
    heard(talk)
    for _ in range(5):
        world.eds.put("a")
    assert talk.hear() is None
    talk.now = ACK_TIMEOUT
    answer = heard(talk)
    assert answer.resources == {"a": 6}
    talk.change(nonce="1", error_detail=WORDS)
    assert talk.heard.count("rejected") == 0
    talk.change(nonce=answer.nonce)
    assert talk.hear() is None


def test_assignments_of_changed_clusters_are_sent_again() -> None:
    """Rule 14: an Envoy asks for none of them, and would wait for 15 seconds."""
    world = World()
    world.cds.waits_for["c"] = ("a",)
    world.cds.put("c")
    world.eds.put("a", "b")
    talk = Talk(world, DeltaStream)
    talk.change(CDS)
    talk.change(CDS, nonce=heard(talk).nonce)
    talk.change(EDS, ["a", "b"])
    talk.change(EDS, nonce=heard(talk).nonce)
    world.cds.put("c")
    changed, answer = talk.hear_all()
    assert (changed.resources, answer.type_url, answer.resources) == ({"c": 2}, EDS, {"a": 1})
    talk.change(EDS, nonce=answer.nonce)
    talk.change(CDS, nonce=changed.nonce)
    assert talk.hear() is None


def test_a_changed_cluster_of_an_unknown_service_is_told_again() -> None:
    """Rule 14: it would wait for an assignment that does not exist."""
    world = World()
    world.cds.waits_for["c"] = ("new",)
    world.cds.put("c")
    talk = Talk(world, DeltaStream)
    talk.change(CDS)
    talk.change(CDS, nonce=heard(talk).nonce)
    talk.change(EDS, ["new"])
    talk.change(EDS, nonce=heard(talk).nonce)
    world.cds.put("c")
    assert [answer.removed for answer in talk.hear_all()] == [(), ("new",)]


@pytest.mark.parametrize(("held", "sent"), [("db:1", [CDS, EDS]), ("db:2", [])])
def test_a_cluster_that_changed_meanwhile_gets_its_assignment(held: str, sent: list[str]) -> None:
    """Rules 12 and 14: also one that the client holds, because the cluster begins anew; else not a byte."""
    world = World()
    world.cds.waits_for["c"] = ("a",)
    world.cds.put("other")
    world.cds.put("c")
    world.eds.put("a")
    talk = Talk(world, DeltaStream)
    talk.change(CDS, initial_resource_versions={"c": held, "other": "db:1"})
    answers = talk.hear_all()
    talk.change(EDS, ["a"], initial_resource_versions={"a": "db:1"})
    answers += talk.hear_all()
    assert [answer.type_url for answer in answers] == sent


def test_clusters_are_removed_last() -> None:
    """Routes that use them are replaced and accepted first."""
    world = World()
    world.cds.put("old", "kept")
    world.rds.put("r")
    talk = Talk(world, DeltaStream)
    talk.change(CDS)
    talk.change(RDS, ["r"])
    for answer in talk.hear_all():
        talk.change(answer.type_url, nonce=answer.nonce)
    del world.cds.versions["old"]
    world.rds.versions["r"] = 9
    world.cds.put("new")
    (answer,) = talk.hear_all()
    assert (answer.resources, answer.removed) == ({"new": 2}, ())
    talk.change(CDS, nonce=answer.nonce)
    (answer,) = talk.hear_all()
    assert answer.resources == {"r": 9}
    talk.change(RDS, nonce=answer.nonce)
    (answer,) = talk.hear_all()
    assert (answer.type_url, answer.resources, answer.removed) == (CDS, {}, ("old",))


def test_limits_of_names() -> None:
    """Rule 18: of all requests together, and of what a client holds."""
    _, talk = a_talk()
    talk.change(names=[f"s{number}" for number in range(MAX_NAMES)])
    with pytest.raises(StatusError, match="at most 10000"):
        talk.change(names=["more"])
    _, talk = a_talk()
    with pytest.raises(StatusError, match="at most 10000"):
        talk.change(CDS, initial_resource_versions={f"s{number}": "1" for number in range(MAX_NAMES + 1)})


class OneName(NoGuard):
    """Refuses one name."""

    def refusal(self, resource_type: ResourceType, node: Node, name: str) -> str:
        """Refuse `secret`."""
        return "token:web may not discover secret" if name == "secret" else ""


def test_a_refused_name_is_told_as_one_that_does_not_exist() -> None:
    """Its words say why; an Envoy keeps the hosts that it has."""
    world = World()
    world.eds.put("a", "secret")
    talk = Talk(world, DeltaStream, guard=OneName())
    talk.change(names=["a", "secret"])
    answer = heard(talk)
    assert (answer.resources, answer.removed) == ({"a": 1}, ("secret",))
    assert answer.errors == {"secret": "token:web may not discover secret"}


def test_what_is_no_message() -> None:
    """The client hears that it is none."""
    _, talk = a_talk()
    with pytest.raises(StatusError, match="no DeltaDiscoveryRequest"):
        talk.stream.receive(b"\xff\xff", 0.0)


def test_doubt_about_one_name_holds_back_no_word_about_another() -> None:
    """A service that cannot be encoded, and one that is not registered, for which an Envoy would wait 15 seconds."""
    world, talk = a_talk("a")
    world.eds.doubtful = {"a"}
    talk.change(names=["a", "nothing"])
    answer = heard(talk)
    assert (answer.resources, answer.removed) == ({}, ("nothing",))
    world.eds.doubtful = set()
    talk.change(nonce=answer.nonce)
    assert heard(talk).resources == {"a": 1}
