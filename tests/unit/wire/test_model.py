"""The documents between registrar and registry: strict on the way in, small on the wire."""

from typing import Any

import msgspec
import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st

from wire.model import (
    Grant,
    Health,
    HeartbeatBatch,
    Registration,
    Report,
    check_metadata,
    same_json,
)

LEAST: dict[str, Any] = {"instance_id": "i-1", "incarnation": 1}
FULL = Registration(
    instance_id="i-1",
    incarnation=2**53,
    health=Report.DEGRADED,
    draining=True,
    revision="abc",
    region="eu-west-1",
    zone="eu-west-1a",
    canary=True,
    weight=10_000,
    repository="shop",
    metadata={"stage": "prod", "nested": {"list": [1, 2.5, None, True]}},
    detail="200 in 3 ms",
    ttl=86_400.0,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def decoded(**fields: Any) -> Registration:
    """Read a registration from JSON, as the registry does."""
    return msgspec.json.decode(msgspec.json.encode(LEAST | fields), type=Registration)


def test_only_what_is_set_is_sent() -> None:
    """A newer registrar sends a newer field only when it is in use: an older registry would refuse it."""
    assert msgspec.json.decode(msgspec.json.encode(Registration("i-1", 1))) == LEAST


def test_every_field_survives_the_wire() -> None:
    """What a registrar encodes is what the registry decodes."""
    assert msgspec.json.decode(msgspec.json.encode(FULL), type=Registration) == FULL


def test_defaults_are_what_most_want() -> None:
    """The least registration is a healthy endpoint without weight, ttl and metadata of its own."""
    registration = decoded()
    assert (
        registration.health,
        registration.draining,
        registration.weight,
        registration.ttl,
        registration.metadata,
    ) == (Report.HEALTHY, False, None, None, {})


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"instance_id": ""}, "$.instance_id"),
        ({"instance_id": "x" * 256}, "$.instance_id"),
        ({"instance_id": 1}, "$.instance_id"),
        ({"incarnation": 0}, "$.incarnation"),
        ({"incarnation": 2**53 + 1}, "$.incarnation"),
        ({"incarnation": "1"}, "$.incarnation"),
        ({"incarnation": True}, "$.incarnation"),
        ({"incarnation": 1.0}, "$.incarnation"),
        ({"health": "healthy"}, "$.health"),
        ({"health": "TIMEOUT"}, "$.health"),
        ({"health": "DRAINING"}, "$.health"),
        ({"draining": "true"}, "$.draining"),
        ({"draining": 1}, "$.draining"),
        ({"canary": None}, "$.canary"),
        ({"weight": 0}, "$.weight"),
        ({"weight": 10_001}, "$.weight"),
        ({"weight": 1.5}, "$.weight"),
        ({"weight": "5"}, "$.weight"),
        ({"zone": "x" * 256}, "$.zone"),
        ({"detail": "x" * 1025}, "$.detail"),
        ({"ttl": 0.9}, "$.ttl"),
        ({"ttl": 86_401}, "$.ttl"),
        ({"ttl": "20s"}, "$.ttl"),
        ({"metadata": []}, "$.metadata"),
        ({"metadata": None}, "$.metadata"),
    ],
)
def test_what_cannot_be_published_is_refused(fields: dict[str, Any], where: str) -> None:
    """Types are not guessed and limits hold; the error names the field."""
    with pytest.raises(msgspec.ValidationError) as caught:
        decoded(**fields)
    assert where in str(caught.value)


@pytest.mark.parametrize("fields", [{"wieght": 5}, {"Weight": 5}, {"endpoint": "10.0.0.1:80"}])
def test_unknown_fields_are_refused(fields: dict[str, Any]) -> None:
    """A typo is found at once."""
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        decoded(**fields)


@pytest.mark.parametrize("field", ["instance_id", "revision", "region", "zone", "repository", "detail"])
@pytest.mark.parametrize("letter", ["\n", "\r", "\0", "\t", "\x1b", "\x7f", "\x85", "\x9f"])
@pytest.mark.parametrize("form", ["{}", "a{}", "a{}b", "{}a"])
def test_control_characters_are_refused_wherever_they_stand(field: str, letter: str, form: str) -> None:
    """C0, DEL and C1 forge log lines and terminals; a trailing newline is none the better."""
    with pytest.raises(msgspec.ValidationError, match="matching regex"):
        decoded(**{field: form.format(letter)})


@pytest.mark.parametrize("text", ["Größe", "部署", "a b", "\xa0", "~", "{}\"'\\"])
def test_any_printable_text_is_taken(text: str) -> None:
    """Labels are for people."""
    assert decoded(zone=text).zone == text


@pytest.mark.parametrize(
    "body",
    [
        b'{"instance_id":"\\ud800","incarnation":1}',
        b'{"instance_id":"\xff","incarnation":1}',
        b'{"instance_id":"a","incarnation":1',
        b"[]",
        b"",
        b'{"instance_id":"a","incarnation":1,"ttl":NaN}',
        b'{"instance_id":"a","incarnation":1,"metadata":{"a":1e400}}',
        b'{"instance_id":"a","incarnation":1} {}',
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    """Broken text, half a surrogate pair and numbers beyond range never get further than the decoder."""
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        msgspec.json.decode(body, type=Registration)


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"a": {"b": {"c": {"d": {}}}}}, r"metadata\.a\.b\.c\.d is nested deeper than 4"),
        ({"a": [[[[]]]]}, r"nested deeper than 4"),
        ({str(number): number for number in range(65)}, "more than 64 values"),
        ({"a": list(range(64))}, "more than 64 values"),
        ({"a": "x" * 1025}, r"metadata\.a is longer than 1024"),
        ({"x" * 1025: 1}, "a key of metadata is longer than 1024"),
        ({"a": "x\n"}, r"metadata\.a has a control character"),
        ({"a": ["\0"]}, r"metadata\.a\[0\] has a control character"),
        ({"\x85": 1}, "a key of metadata has a control character"),
        ({"a": 2**53 + 1}, r"metadata\.a is larger than 2"),
        ({"a": -(2**53) - 1}, r"metadata\.a is larger than 2"),
        ({"a": 1e17}, r"metadata\.a is larger than 2"),
        ({"a": float("nan")}, "is not a finite number"),
        ({"a": float("-inf")}, "is not a finite number"),
    ],
)
def test_metadata_has_limits(metadata: dict[str, Any], why: str) -> None:
    """What PostgreSQL, Envoy or a log could not carry is refused, by its path."""
    with pytest.raises(ValueError, match=why):
        check_metadata(metadata)


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": {"b": {"c": {"d": 1}}}},
        {str(number): number for number in range(64)},
        {"a": 2**53, "b": -(2**53), "c": True, "d": None, "e": "x" * 1024, "": ""},
    ],
)
def test_metadata_at_its_limits_is_taken(metadata: dict[str, Any]) -> None:
    """The limits are the last that passes."""
    assert decoded(metadata=metadata).metadata == metadata


def test_metadata_is_judged_on_both_sides() -> None:
    """A registrar cannot even build what the registry would refuse."""
    with pytest.raises(ValueError, match="control character"):
        Registration("i-1", 1, metadata={"a": "\n"})


@examples(60)
@given(st.dictionaries(st.text(max_size=5), json_values, max_size=5))
def test_metadata_that_is_taken_survives_json(metadata: dict[str, Any]) -> None:
    """What the check lets through comes back the same from its JSON."""
    try:
        check_metadata(metadata)
    except ValueError:
        return
    assert same_json(msgspec.json.decode(msgspec.json.encode(metadata)), metadata)


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": [0]}, {"a": [False]}),
        ({"a": {"b": 1}}, {"a": {"b": True}}),
    ],
)
def test_true_and_one_are_two_values(first: dict[str, Any], other: dict[str, Any]) -> None:
    """Envoy's subsets tell them apart, so a heartbeat that says the other is a change."""
    assert Registration("i-1", 1, metadata=first) != Registration("i-1", 1, metadata=other)


def test_the_order_of_keys_is_no_difference() -> None:
    """PostgreSQL returns keys in its own order; a heartbeat in the old one changes nothing."""
    document = {"a": 1, "b": {"c": [1, None], "d": 2}}
    other = {"b": {"d": 2, "c": [1, None]}, "a": 1}
    assert Registration("i-1", 1, metadata=document) == Registration("i-1", 1, metadata=other)
    assert Registration("i-1", 1) != Registration("i-2", 1)
    assert Registration("i-1", 1) != "i-1"


@given(json_values, json_values)
@examples(60)
def test_same_json_is_what_json_says(first: object, other: object) -> None:
    """Two values are the same exactly if their JSON is, apart from the order of keys and the sign of zero."""
    encoded = [msgspec.json.encode(value, order="sorted").replace(b"-0.0", b"0.0") for value in (first, other)]
    assert same_json(first, other) == (encoded[0] == encoded[1])
    assert same_json(first, msgspec.json.decode(msgspec.json.encode(first)))


def test_a_batch_has_one_to_a_thousand_heartbeats() -> None:
    """A batch of nothing is a mistake, and a batch is bounded."""
    beat = {"service": "shop", "endpoint": "10.0.0.1:80", "registration": LEAST}
    for count, fine in ((0, False), (1, True), (1000, True), (1001, False)):
        body = msgspec.json.encode({"heartbeats": [beat] * count})
        if fine:
            assert len(msgspec.json.decode(body, type=HeartbeatBatch).heartbeats) == count
        else:
            with pytest.raises(msgspec.ValidationError):
                msgspec.json.decode(body, type=HeartbeatBatch)


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "a\n", "ü", "a" * 256, ".a", "a%2f"])
def test_service_names_are_plain(name: str) -> None:
    """They stand in paths, logs and Envoy's configuration."""
    beat = {"service": name, "endpoint": "10.0.0.1:80", "registration": LEAST}
    with pytest.raises(msgspec.ValidationError, match=r"\$\.heartbeats\[0\]\.service"):
        msgspec.json.decode(msgspec.json.encode({"heartbeats": [beat]}), type=HeartbeatBatch)


def test_answers_may_grow() -> None:
    """A registrar reads the grant of a newer registry."""
    grant = Grant("shop", "10.0.0.1:80", Health.HEALTHY, 3, 20.0, 5.0, 12.0)
    document = msgspec.to_builtins(grant) | {"shard": 4}
    assert msgspec.json.decode(msgspec.json.encode(document), type=Grant) == grant
