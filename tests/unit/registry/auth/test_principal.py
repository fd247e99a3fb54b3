"""The name of a principal in the history: what is proven, what is only said, and from where."""

import pytest

from registry.auth.principal import Principal, peer_of
from registry.auth.subject import ANONYMOUS, Subject

PROVEN = Subject("token:ci", "machine")


@pytest.mark.parametrize(
    ("subject", "actor", "name"),
    [
        (ANONYMOUS, "", "10.0.0.9"),
        (ANONYMOUS, "ann", "ann from 10.0.0.9"),
        (ANONYMOUS, "token:ci", "anonymous as token:ci from 10.0.0.9"),
        (PROVEN, "", "token:ci from 10.0.0.9"),
        (PROVEN, "ann", "token:ci as ann from 10.0.0.9"),
        (PROVEN, "token:other", "token:ci as token:other from 10.0.0.9"),
    ],
)
def test_what_is_only_said_never_looks_proven(subject: Subject, actor: str, name: str) -> None:
    """X-Actor is not verified; a name with the form of a proven one stands behind the word anonymous."""
    assert Principal("10.0.0.9", actor, subject).name == name


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("10.0.0.9", 40_000), "10.0.0.9"),
        (("::ffff:10.0.0.9", 40_000), "10.0.0.9"),
        (("::ffff:127.0.0.1", 40_000), "127.0.0.1"),
        (("2001:db8::9", 40_000), "2001:db8::9"),
        (("::ffff:9", 40_000), "::ffff:9"),
        (None, "local"),
    ],
)
def test_an_ipv4_client_of_an_ipv6_listener_has_its_ipv4_address(client: tuple[str, int] | None, address: str) -> None:
    """Grants for ``peer``, networks of tokens, proxies and the rule of one's own address compare that one."""
    assert peer_of(client) == address
