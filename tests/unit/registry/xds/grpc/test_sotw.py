"""The state of the world on a stream, rule by rule."""

from typing import Any

import pytest
from harness.xds_world import CDS, EDS, LDS, RDS, Answer, Talk, World

from registry.http2.call import Status, StatusError
from registry.xds.grpc.observer import NoGuard
from registry.xds.grpc.stream import ACK_TIMEOUT, MAX_ANSWER, MAX_NAME, MAX_NAMES
from registry.xds.resources import ResourceType
from wire.node import Node

WORDS = {"code": 3, "message": "malformed IP address"}


def a_talk(*names: str, **fields: str) -> tuple[World, Talk]:
    """Return a world with these services, and a stream to it that has asked for nothing yet."""
    world = World()
    for name in names:
        world.eds.put(name)
    return world, Talk(world, **fields)  # type: ignore[arg-type]  # the user agent alone


def heard(talk: Talk) -> Answer:
    """Return the next answer, which there has to be."""
    answer = talk.hear()
    assert answer is not None
    return answer


def test_the_node_comes_once() -> None:
    """Rule 1: later requests have no node, and one that repeats it is not read again."""
    _, talk = a_talk("a", "b")
    talk.ask(names=["a"])
    assert talk.stream.node == Node("envoy-1", "web")
    talk.ask(names=["a", "b"])
    talk.ask(names=["a", "b"], node={"id": "other"})
    assert talk.stream.node.id == "envoy-1"
    assert heard(talk).resources == {"a": 1, "b": 2}


@pytest.mark.parametrize("type_url", [EDS, CDS, LDS, RDS])
def test_the_first_request_is_answered_at_once(type_url: str) -> None:
    """Rule 2: also when there is nothing."""
    talk = Talk(World())
    talk.ask(type_url, [] if type_url in (CDS, LDS) else ["a"])
    answer = heard(talk)
    assert answer.type_url == type_url
    assert talk.hear() is None


def test_a_nonce_and_no_error_is_an_ack() -> None:
    """Rule 3: versions say nothing, and an error always means a NACK."""
    world, talk = a_talk("a")
    talk.ask(names=["a"])
    first = heard(talk)
    assert first.nonce
    talk.ask(names=["a"], nonce=first.nonce, version_info="something else")
    assert talk.heard.events[-1:] == [("acknowledged", "endpoints", {"a": ""})]
    world.eds.put("a")
    second = heard(talk)
    assert second.nonce != first.nonce
    talk.ask(names=["a"], nonce=second.nonce, version_info=second.version, error_detail=WORDS)
    assert talk.heard.events[-1:] == [("rejected", "endpoints", "malformed IP address", {"a": "db:2"})]


def test_a_rejected_version_is_not_sent_again() -> None:
    """Rule 4: the next one is, at once; other names go on."""
    world, talk = a_talk("a", "b")
    talk.ask(names=["a"])
    talk.ask(names=["a"], nonce=heard(talk).nonce, error_detail=WORDS)
    assert talk.hear() is None
    world.eds.make_sure()
    assert talk.hear() is None
    talk.ask(names=["a", "b"], nonce="1", error_detail=WORDS)
    answer = heard(talk)
    assert answer.resources == {"b": 2}
    talk.ask(names=["a", "b"], nonce=answer.nonce)
    world.eds.put("a")
    answer = heard(talk)
    assert answer.resources == {"a": 3}
    (record,) = talk.stream.records
    assert record.rejection("a") is not None
    talk.ask(names=["a", "b"], nonce=answer.nonce)
    assert record.rejection("a") is None
    assert record.accepted("a") == "db:3"


def test_a_rejected_answer_of_many_is_sent_name_by_name() -> None:
    """Rule 4: the bad one is found, and holds back no other."""
    _, talk = a_talk("a", "b", "c")
    names = ["a", "b", "c"]
    talk.ask(names=names)
    talk.ask(names=names, nonce=heard(talk).nonce, error_detail=WORDS)
    taken: dict[str, int] = {}
    for _ in range(3):
        answer = heard(talk)
        (name,) = answer.resources
        bad = name == "b"
        taken |= {} if bad else answer.resources
        fields: dict[str, Any] = {"error_detail": WORDS} if bad else {}
        talk.ask(names=names, nonce=answer.nonce, **fields)
    assert talk.hear() is None
    assert taken == {"a": 1, "c": 3}
    (record,) = talk.stream.records
    assert list(record.troubled) == ["b"]


def test_names_of_the_newest_request_count() -> None:
    """Rule 5: a stale nonce voids an ACK, and never a subscription."""
    world, talk = a_talk("a", "b")
    talk.ask(names=["a"])
    first = heard(talk)
    talk.ask(names=["a"], nonce=first.nonce)
    world.eds.put("a")
    second = heard(talk)
    talk.ask(names=["a", "b"], nonce=first.nonce)
    assert talk.hear() is None, "one answer is in flight"
    talk.ask(names=["a", "b"], nonce=second.nonce)
    assert heard(talk).resources == {"b": 2}


def test_names_that_are_added_are_sent_alone() -> None:
    """Rule 6: removed ones are silence, and the same names on an accepted nonce are sent again."""
    _, talk = a_talk("a", "b")
    talk.ask(names=["a"])
    talk.ask(names=["a"], nonce=heard(talk).nonce)
    talk.ask(names=["a", "b"], nonce="1")
    answer = heard(talk)
    assert answer.resources == {"b": 2}
    talk.ask(names=["a", "b"], nonce=answer.nonce)
    talk.ask(names=["b"], nonce=answer.nonce)
    assert talk.hear() is None
    talk.ask(names=["b"], nonce=answer.nonce)
    assert heard(talk).resources == {"b": 2}


def test_a_name_that_is_asked_for_anew_is_sent() -> None:
    """Rule 7: although its version and the nonce are the same (go-control-plane#1002)."""
    _, talk = a_talk("a", "b")
    talk.ask(names=["a", "b"])
    talk.ask(names=["a", "b"], nonce=heard(talk).nonce)
    talk.ask(names=["b"], nonce="1", version_info="x")
    assert talk.hear() is None
    talk.ask(names=["a", "b"], nonce="1", version_info="x")
    assert heard(talk).resources == {"a": 1}


@pytest.mark.parametrize(("type_url", "source"), [(CDS, "cds"), (LDS, "lds")])
def test_a_first_request_without_names_asks_for_all(type_url: str, source: str) -> None:
    """Rule 8, the first sequence of the specification: all, all and a name, all, a name, none."""
    world = World()
    getattr(world, source).put("a", "b")
    talk = Talk(world)
    talk.ask(type_url)
    assert heard(talk).resources == {"a": 1, "b": 1}
    talk.ask(type_url, nonce="1")
    assert talk.hear() is None
    talk.ask(type_url, ["*", "a"], nonce="1")
    assert heard(talk).resources == {"a": 1, "b": 1}
    talk.ask(type_url, ["*", "a"], nonce="2")
    talk.ask(type_url, ["*"], nonce="2")
    assert talk.hear() is None
    getattr(world, source).put("c")
    assert heard(talk).resources == {"a": 1, "b": 1, "c": 2}
    talk.ask(type_url, ["a"], nonce="3")
    assert heard(talk).resources == {"a": 1}
    talk.ask(type_url, ["a"], nonce="4")
    getattr(world, source).put("b")
    assert talk.hear() is None
    talk.ask(type_url, nonce="4")
    getattr(world, source).put("a")
    assert talk.hear() is None


def test_no_names_after_a_name_are_none() -> None:
    """Rule 8, the second sequence: it begins with a name, and a request without names ends everything."""
    world = World()
    world.cds.put("a", "b")
    talk = Talk(world)
    talk.ask(CDS, ["a"])
    assert heard(talk).resources == {"a": 1}
    talk.ask(CDS, nonce="1")
    world.cds.put("a", "b")
    assert talk.hear() is None
    talk.ask(CDS, ["*"], nonce="1")
    assert heard(talk).resources == {"a": 2, "b": 2}


def test_assignments_have_no_wildcard() -> None:
    """Rule 8: a request for none gets an empty answer, and nothing later."""
    world, talk = a_talk("a")
    talk.ask()
    assert heard(talk).resources == {}
    talk.ask(nonce="1")
    world.eds.put("a")
    assert talk.hear() is None


@pytest.mark.parametrize(("type_url", "source", "full"), [(CDS, "cds", True), (LDS, "lds", True), (RDS, "rds", False)])
def test_clusters_and_listeners_come_as_full_sets(type_url: str, source: str, *, full: bool) -> None:
    """Rule 9: of other types what changed; no name comes twice."""
    world = World()
    getattr(world, source).put("a", "b")
    talk = Talk(world)
    talk.ask(type_url, ["a", "b", "a"])
    assert heard(talk).resources == {"a": 1, "b": 1}
    talk.ask(type_url, ["a", "b"], nonce="1")
    getattr(world, source).put("b")
    assert heard(talk).resources == ({"a": 1, "b": 2} if full else {"b": 2})


def test_types_come_in_any_order() -> None:
    """Rule 13: a client that connects again may ask for assignments before clusters."""
    world = World()
    world.eds.put("a")
    world.cds.put("a")
    world.rds.put("r")
    talk = Talk(world)
    talk.ask(RDS, ["r"])
    talk.ask(EDS, ["a"])
    talk.ask(CDS)
    assert [answer.type_url for answer in talk.hear_all()] == [CDS, EDS, RDS]


def test_assignments_of_changed_clusters_are_sent_again() -> None:
    """Rule 14: right behind the clusters, which Envoy accepts when they are warm; those alone that it had before."""
    world = World()
    world.cds.waits_for["c"] = ("a",)
    world.cds.put("c")
    world.eds.put("a", "b")
    talk = Talk(world)
    talk.ask(CDS)
    talk.ask(CDS, nonce=heard(talk).nonce)
    talk.ask(EDS, ["a", "b"])
    talk.ask(EDS, ["a", "b"], nonce=heard(talk).nonce)
    world.cds.put("c")
    changed, answer = talk.hear_all()
    assert (answer.type_url, answer.resources) == (EDS, {"a": 1})
    talk.ask(EDS, ["a", "b"], nonce="1")
    talk.ask(CDS, nonce=changed.nonce)
    assert talk.hear_all() == [], "that nonce is stale: Envoy has the assignments already"


def test_an_unknown_service_is_empty_to_a_client_that_holds_nothing() -> None:
    """Rule 16: it holds back no known one, and its words say why."""
    world, talk = a_talk("a")
    talk.ask(names=["a", "new"])
    answer = heard(talk)
    assert answer.resources == {"a": 1, "new": 0}
    assert answer.errors == {"new": "no resource of this name is known"}
    talk.ask(names=["a", "new"], nonce=answer.nonce)
    world.eds.put("new")
    assert heard(talk).resources == {"new": 2}


def test_an_unknown_service_is_silence_to_a_client_that_holds_something() -> None:
    """Rule 16: it may have hosts of an earlier stream; the subscription stays."""
    world, talk = a_talk("a")
    talk.ask(names=["a", "new"], version_info="db:7")
    answer = heard(talk)
    assert answer.resources == {"a": 1}
    talk.ask(names=["a", "new"], nonce=answer.nonce, version_info=answer.version)
    assert talk.hear() is None
    world.eds.put("new")
    assert heard(talk).resources == {"new": 2}


def test_nothing_but_unknown_services_is_silence() -> None:
    """Rule 16: an answer without a resource would hold an Envoy's start as silence does."""
    _, talk = a_talk()
    talk.ask(names=["new"], version_info="db:7")
    assert talk.hear() is None
    (record,) = talk.stream.records
    assert record.in_flight is None


def test_a_grpc_library_hears_why_at_once() -> None:
    """Rule 16: its RPCs fail with these words, and not after 15 seconds."""
    world, talk = a_talk(user_agent="gRPC C-core")
    world.lds.put("other")
    talk.ask(LDS, ["other"])
    talk.ask(LDS, ["other"], nonce=heard(talk).nonce, version_info="1")
    talk.ask(LDS, ["other", "new"], nonce="1", version_info="1")
    answer = heard(talk)
    assert answer.errors == {"new": "no resource of this name is known"}
    assert answer.resources == {"other": 1}


def test_a_forgotten_service_is_silence() -> None:
    """A client keeps the hosts that it has."""
    world, talk = a_talk("a")
    talk.ask(names=["a"])
    talk.ask(names=["a"], nonce=heard(talk).nonce)
    world.eds.drop("a")
    assert talk.hear() is None
    world.eds.put("a")
    assert heard(talk).resources == {"a": 3}


def test_a_listener_of_a_grpc_library_stays() -> None:
    """To leave it out would cut its RPCs."""
    world, talk = a_talk(user_agent="gRPC Go")
    world.lds.put("a", "b")
    talk.ask(LDS, ["a", "b"])
    talk.ask(LDS, ["a", "b"], nonce=heard(talk).nonce)
    world.lds.drop("a")
    assert talk.hear() is None
    world.lds.put("b")
    assert heard(talk).resources == {"a": 1, "b": 3}


def test_one_answer_is_in_flight() -> None:
    """Rule 17: changes meanwhile are one answer with the newest state."""
    world, talk = a_talk("a", "b")
    talk.ask(names=["a", "b"])
    first = heard(talk)
    for _ in range(200):
        world.eds.put("a")
    world.eds.put("b")
    assert talk.hear() is None
    assert talk.woken == 1, "it is woken once"
    assert talk.heard.count("coalesced") == 199
    talk.ask(names=["a", "b"], nonce=first.nonce)
    assert heard(talk).resources == {"a": 202, "b": 203}


def test_an_answer_that_is_never_accepted_has_no_deadline_of_its_own() -> None:
    """Rule 17: an Envoy may warm a cluster for minutes; its stream is not asked again and again meanwhile."""
    world, talk = a_talk("a")
    world.cds.put("a")
    talk.ask(CDS)
    talk.ask(names=["a"])
    assert [answer.type_url for answer in talk.hear_all()] == [CDS, EDS]
    talk.ask(names=["a"], nonce="1")
    talk.now = ACK_TIMEOUT + 1
    world.eds.put("a")
    heard(talk)
    world.eds.put("a")
    assert talk.hear() is None
    assert talk.stream.deadline() == talk.now + ACK_TIMEOUT


def test_a_client_that_never_answers_is_not_waited_for_any_longer() -> None:
    """Rule 17: after ten seconds the newest state goes out, and its ACK counts."""
    world, talk = a_talk("a", "b")
    talk.ask(names=["a", "b"])
    first = heard(talk)
    assert talk.stream.deadline() is None, "there is nothing to send"
    world.eds.put("a")
    assert talk.stream.deadline() == ACK_TIMEOUT
    talk.now = ACK_TIMEOUT - 0.1
    assert talk.hear() is None
    talk.now = ACK_TIMEOUT
    second = heard(talk)
    assert second.resources == {"a": 3, "b": 2}, "b may have been rejected, which nobody would hear of"
    assert talk.heard.count("unacknowledged") == 1
    talk.ask(names=["a", "b"], nonce=first.nonce, error_detail=WORDS)
    assert talk.heard.count("rejected") == 0
    talk.ask(names=["a", "b"], nonce=second.nonce)
    assert talk.heard.count("acknowledged") == 1


def test_the_only_type_of_a_method() -> None:
    """Rule 18: another type ends the stream; none means this one."""
    world = World()
    world.eds.put("a")
    talk = Talk(world, only=EDS)
    talk.ask("", ["a"])
    assert heard(talk).resources == {"a": 1}
    with pytest.raises(StatusError, match="this method serves") as error:
        talk.ask(CDS)
    assert error.value.status is Status.INVALID_ARGUMENT


def test_ads_needs_a_type() -> None:
    """Rule 18: and a type that is not served here is silence, because the others of the stream go on."""
    world = World()
    world.eds.put("a")
    talk = Talk(world)
    talk.ask("type.googleapis.com/envoy.service.runtime.v3.Runtime", ["rtds"])
    assert talk.hear() is None
    talk.ask(names=["a"])
    assert heard(talk).resources == {"a": 1}
    with pytest.raises(StatusError, match="no type_url"):
        talk.ask("")


def test_limits_of_names() -> None:
    """Rule 18: their number and their length."""
    _, talk = a_talk()
    talk.ask(names=[f"s{number}" for number in range(MAX_NAMES)])
    with pytest.raises(StatusError, match="at most 10000"):
        talk.ask(names=[f"s{number}" for number in range(MAX_NAMES + 1)])
    with pytest.raises(StatusError, match="1025 characters"):
        talk.ask(names=["x" * (MAX_NAME + 1)])


def test_what_is_no_message() -> None:
    """The client hears that it is none."""
    _, talk = a_talk()
    with pytest.raises(StatusError) as error:
        talk.stream.receive(b"\xff\xff", 0.0)
    assert error.value.status is Status.INVALID_ARGUMENT


def test_large_answers_are_several() -> None:
    """Decision 7: no answer of several services is larger than 3.5 MiB."""
    world, talk = a_talk()
    world.eds.size = dict.fromkeys("abc", MAX_ANSWER // 2 - 200)
    world.eds.put("a", "b", "c")
    talk.ask(names=["a", "b", "c"])
    first = heard(talk)
    assert list(first.resources) == ["a", "b"]
    talk.ask(names=["a", "b", "c"], nonce=first.nonce)
    assert list(heard(talk).resources) == ["c"]


@pytest.mark.parametrize(("user_agent", "sent"), [("gRPC Java", False), ("envoy", True)])
def test_a_resource_that_is_too_large_for_grpc(user_agent: str, *, sent: bool) -> None:
    """Decision 7: it is not sent, counted once and shown; the others are sent."""
    world, talk = a_talk(user_agent=user_agent)
    world.eds.size["big"] = MAX_ANSWER
    world.eds.put("big", "small")
    talk.ask(names=["big", "small"])
    seen: set[str] = set()
    while answer := talk.hear():
        seen.update(answer.resources)
        talk.ask(names=["big", "small"], nonce=answer.nonce)
    assert seen == ({"big", "small"} if sent else {"small"})
    (record,) = talk.stream.records
    assert record.oversized("big") is not sent
    world.eds.make_sure()
    assert talk.hear() is None
    assert talk.heard.count("oversized") == (not sent)
    world.eds.size["big"] = 0
    world.eds.put("big")
    assert heard(talk).resources == {"big": 2}
    assert not record.oversized("big")


def test_an_unsure_process_ends_a_stream_without_an_answer() -> None:
    """Decision 9: another process may know."""
    world, talk = a_talk("a")
    world.eds.sure = False
    talk.ask(names=["a"])
    with pytest.raises(StatusError) as error:
        talk.hear()
    assert error.value.status is Status.UNAVAILABLE


def test_doubt_about_one_name_holds_back_no_other() -> None:
    """It is looked for again with the next change, and after the next ACK."""
    world, talk = a_talk("a", "b")
    world.eds.doubtful = {"a"}
    talk.ask(names=["a", "b"])
    answer = heard(talk)
    assert answer.resources == {"b": 2}
    world.eds.doubtful = set()
    talk.ask(names=["a", "b"], nonce=answer.nonce)
    assert heard(talk).resources == {"a": 1}


@pytest.mark.parametrize("type_url", [EDS, CDS, LDS, RDS])
def test_an_unsure_process_is_silent(type_url: str) -> None:
    """Decision 9: nothing empty, and everything once it is sure again."""
    world = World()
    source = {EDS: world.eds, CDS: world.cds, LDS: world.lds, RDS: world.rds}[type_url]
    source.put("a")
    talk = Talk(world)
    talk.ask(type_url, ["a"])
    talk.ask(type_url, ["a"], nonce=heard(talk).nonce)
    source.make_sure(sure=False)
    source.put("a")
    talk.ask(type_url, ["a", "new"], nonce="1")
    assert talk.hear() is None
    assert talk.stream.deadline() is None
    source.make_sure()
    assert heard(talk).resources["a"] == 2


@pytest.mark.parametrize(("brought", "sent"), [("", True), ("other:3@*", False), ("db:0@*", False)])
def test_no_clusters_are_no_reason_to_remove_those_of_others(brought: str, *, sent: bool) -> None:
    """A node of which nothing was ever defined keeps what another control plane has given it."""
    talk = Talk(World())
    talk.ask(CDS, version_info=brought)
    assert (talk.hear() is not None) is sent


def test_clusters_are_removed_last() -> None:
    """Routes that use them are replaced and accepted first; listeners and routes wait for new clusters."""
    world = World()
    world.cds.put("old", "kept")
    world.rds.put("r")
    talk = Talk(world)
    talk.ask(CDS)
    talk.ask(RDS, ["r"])
    for answer in talk.hear_all():
        talk.ask(answer.type_url, ["r"] if answer.type_url == RDS else [], nonce=answer.nonce)
    # One turn brings a new cluster, its route, and takes the old cluster away.
    del world.cds.versions["old"]
    world.rds.versions["r"] = 9
    world.cds.put("new")
    (answer,) = talk.hear_all()
    assert set(answer.resources) == {"old", "kept", "new"}
    talk.ask(CDS, nonce=answer.nonce)
    (answer,) = talk.hear_all()
    assert answer.resources == {"r": 9}
    talk.ask(RDS, ["r"], nonce=answer.nonce)
    (answer,) = talk.hear_all()
    assert set(answer.resources) == {"kept", "new"}


def test_clusters_stay_while_routes_are_rejected() -> None:
    """The old routes are in force, and may use them."""
    world = World()
    world.cds.put("old")
    world.rds.put("r")
    talk = Talk(world)
    talk.ask(CDS)
    talk.ask(RDS, ["r"])
    for answer in talk.hear_all():
        talk.ask(answer.type_url, ["r"] if answer.type_url == RDS else [], nonce=answer.nonce)
    world.rds.versions["r"] = 9
    world.cds.drop("old")
    (answer,) = talk.hear_all()
    talk.ask(RDS, ["r"], nonce=answer.nonce, error_detail=WORDS)
    assert talk.hear_all() == []
    world.rds.put("r")
    (answer,) = talk.hear_all()
    talk.ask(RDS, ["r"], nonce=answer.nonce)
    (answer,) = talk.hear_all()
    assert (answer.type_url, answer.resources) == (CDS, {})


class OneName(NoGuard):
    """Refuses one name."""

    def refusal(self, resource_type: ResourceType, node: Node, name: str) -> str:
        """Refuse `secret`."""
        return "token:web may not discover secret" if name == "secret" else ""


def test_a_refused_name_is_answered_as_one_that_is_not_registered() -> None:
    """Silence would hold the start of an Envoy; to one that may hold something, nothing is said."""
    world = World()
    world.eds.put("a", "secret")
    talk = Talk(world, guard=OneName())
    talk.ask(names=["a", "secret"])
    answer = heard(talk)
    assert answer.resources == {"a": 1, "secret": 0}
    assert answer.errors == {"secret": "token:web may not discover secret"}
    back = Talk(world, guard=OneName())
    back.ask(names=["a", "secret"], version_info="db:1")
    assert heard(back).resources == {"a": 1}


def test_a_stream_leaves_no_watch() -> None:
    """When it ends, and when its names change."""
    world, talk = a_talk("a", "b")
    world.cds.put("c")
    talk.ask(names=["a"])
    talk.ask(names=["b"])
    talk.ask(CDS)
    talk.ask(CDS, ["c"])
    assert len(world.eds.watches) == len(world.cds.watches) == 1
    world.eds.put("a")
    woken = talk.woken
    talk.stream.close(1.0)
    assert not world.eds.watches
    assert not world.cds.watches
    assert talk.woken == woken
    assert talk.heard.events[-1] == ("closed",)


def test_a_stream_that_asked_for_nothing_ends() -> None:
    """It was never opened for its observer."""
    _, talk = a_talk()
    talk.stream.close(1.0)
    assert talk.heard.events == []


def test_what_is_said_of_unknown_names_is_said_again_when_the_answer_is_rejected() -> None:
    """They came in one answer with what was bad, so the client has not taken it; it does not count as current."""
    _, talk = a_talk("bad", user_agent="gRPC Go")
    talk.ask(names=["bad", "unknown"], version_info="another control plane's")
    answer = heard(talk)
    assert (answer.resources, list(answer.errors)) == ({"bad": 1}, ["unknown"])
    (record,) = talk.stream.records
    talk.ask(names=["bad", "unknown"], nonce=answer.nonce, error_detail=WORDS)
    assert record.accepted("unknown") == ""
    again = heard(talk)
    assert (again.resources, list(again.errors)) == ({}, ["unknown"])
    talk.ask(names=["bad", "unknown"], nonce=again.nonce)
    assert record.accepted("unknown") == "db:0"
    assert talk.hear() is None


def test_an_empty_assignment_is_sent_again_when_its_answer_is_rejected() -> None:
    """It came with a bad one, and without it Envoy's start would be held; so does a repeated request get it again."""
    _, talk = a_talk("bad")
    names = ["bad", "unknown"]
    talk.ask(names=names)
    answer = heard(talk)
    assert answer.resources == {"bad": 1, "unknown": 0}
    talk.ask(names=names, nonce=answer.nonce, error_detail=WORDS)
    alone = heard(talk)
    if alone.resources == {"bad": 1}:
        talk.ask(names=names, nonce=alone.nonce, error_detail=WORDS)
        alone = heard(talk)
    assert alone.resources == {"unknown": 0}
    talk.ask(names=names, nonce=alone.nonce)
    assert talk.hear() is None
    talk.ask(names=names, nonce=alone.nonce)
    assert heard(talk).resources["unknown"] == 0
