"""Grants of the command line: ready-made sets, options, and the words in which they are shown."""

import pytest

from registry.auth import verbs
from registry.auth.subject import CREDENTIAL_KINDS
from registryctl.errors import UsageError
from registryctl.grants import KINDS, PRESETS, VERBS, GrantOptions, grant_text, grants_of, kind_of
from registryctl.token import AccessToken, parse_token


def test_verbs_and_kinds_are_those_of_the_registry() -> None:
    """The two programs share no code for them."""
    assert tuple(verbs.Verb) == VERBS
    assert CREDENTIAL_KINDS == KINDS
    assert all(preset.kind in KINDS and set(preset.verbs) <= set(VERBS) for preset in PRESETS.values())


def test_a_set_is_added_to_by_options() -> None:
    """Verbs of both are granted, each once; the kind is that of the set unless an option names another."""
    options = GrantOptions("operator", verbs=["debug", "read"], services=["shop"])
    assert grants_of(options) == [{"verbs": ["read", "operate", "inspect", "observe", "debug"], "services": ["shop"]}]
    assert kind_of(options, "machine") == "operator"
    assert kind_of(GrantOptions("operator", kind="machine"), "envoy") == "machine"


def test_a_bound_registrar_registers_itself_and_lets_its_envoy_discover() -> None:
    """An AWS role stands for many tasks: each registers its own address and instance, unless an option says so."""
    discover = {"verbs": ["discover"], "services": ["*"]}
    own = {"verbs": ["register"], "services": ["shop"], "addresses": ["peer"], "instance": "session"}
    assert grants_of(GrantOptions("registrar", services=["shop"]), bound=True) == [own, discover]
    wide = GrantOptions("registrar", services=["shop"], addresses=["10.0.0.0/8"], instance="any")
    assert grants_of(wide, bound=True) == [own | {"addresses": ["10.0.0.0/8"], "instance": "any"}, discover]
    assert grants_of(GrantOptions("registrar", services=["shop"])) == [{"verbs": ["register"], "services": ["shop"]}]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (GrantOptions(), "--verb"),
        (GrantOptions("registrar"), "--service"),
        (GrantOptions("regstrar"), "regstrar"),
        (GrantOptions(verbs=["reed"]), "'reed'"),
        (GrantOptions("envoy", addresses=["peer"]), "about registrations"),
        (GrantOptions("registrar", services=["a"], instance="mine"), "neither any nor session"),
    ],
)
def test_options_that_make_no_grant_are_refused(options: GrantOptions, says: str) -> None:
    """The error names what was received, before the registry is asked."""
    with pytest.raises(UsageError, match=says):
        grants_of(options)


def test_grants_are_shown_in_words() -> None:
    """Everything that a grant is bound to is in its text."""
    grant = {"verbs": ["register"], "services": ["shop", "web-*"], "addresses": ["peer"], "instance": "session"}
    assert grant_text(grant) == "register: shop, web-* at peer, its own instances"
    everything = {"verbs": list(VERBS), "services": ["*"], "addresses": [], "instance": "any"}
    assert grant_text(everything) == "every verb: everything"


@pytest.mark.parametrize("text", ["", " \n", "a b", "a\nb", "ä", "x" * 5000, "a\x00"])
def test_what_is_no_token_is_refused_without_being_repeated(text: str) -> None:
    """The error names the source alone."""
    with pytest.raises(UsageError) as refused:
        parse_token(text, "the file")
    assert str(refused.value).startswith("the file")
    assert "xxx" not in str(refused.value)


def test_a_token_has_no_text_where_it_is_printed() -> None:
    """A traceback or a log that shows it names its source."""
    token = parse_token(" hct_secret\n", "the file")
    assert (token.text, "secret" in repr(token), "secret" in f"{token}") == ("hct_secret", False, False)
    assert isinstance(token, AccessToken)
