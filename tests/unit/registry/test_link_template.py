"""Links to other systems: what may be configured, and what registrars cannot make of it."""

from urllib.parse import unquote, urlsplit

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import BadSettingsError
from registry.link_template import ENDPOINT_PLACEHOLDERS, SERVICE_PLACEHOLDERS, LinkTemplate
from registry.settings import load_settings

BAD = {
    "https://logs.example.com/": "has to begin with a name and an equals sign",
    "My Logs=https://logs.example.com/": "has to begin with a name",
    "Logs=ftp://logs.example.com/": "http:// or https://",
    "Logs=javascript:alert(1)": "http:// or https://",
    "Logs=//logs.example.com/": "http:// or https://",
    "Logs=https://ann:secret@logs.example.com/": "without a user",
    "Logs=https://{service}.example.com/": "host without placeholders",
    "Logs=https://logs.example.com\\@evil.example/": "without a user",
    "Logs=https://logs.example.com\\x": "printable ASCII",
    "Logs=https://logs.example.com/{instance}": "it may have {service}",
    "Logs=https://logs.example.com/{service": "a single brace",
    "Logs=https://logs.example.com/{}": "it may have {service}",
    "Logs=https://logs.example.com:99999/": "Port out of range",
}


@pytest.mark.parametrize("text", BAD)
def test_a_link_that_would_lead_elsewhere_is_refused_at_the_start(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is allowed; and a password in it is not repeated."""
    monkeypatch.setenv("REGISTRY_LINK_SERVICE", text if " " not in text else f"a=b {text}")
    with pytest.raises(BadSettingsError, match=r"^REGISTRY_LINK_SERVICE: ") as refused:
        load_settings()
    with pytest.raises(ValueError, match=BAD[text].replace("{", r"\{")):
        LinkTemplate.parse(text, SERVICE_PLACEHOLDERS)
    assert "secret" not in str(refused.value)


def test_two_links_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could tell them apart."""
    monkeypatch.setenv("REGISTRY_LINK_ENDPOINT", "Logs=https://a/ Logs=https://b/")
    with pytest.raises(BadSettingsError, match="there are two links Logs"):
        load_settings()


@examples(200)
@given(st.fixed_dictionaries({name: st.text() for name in ENDPOINT_PLACEHOLDERS}))
def test_values_stay_where_the_template_has_them(values: dict[str, str]) -> None:
    """Whatever a registrar calls itself: the host, the path's depth and the parameters are those of the template."""
    link = LinkTemplate.parse(
        "Logs=https://logs.example.com/app/{zone}/x?q={instance}&z=1#{revision}", ENDPOINT_PLACEHOLDERS
    )
    try:
        filled = link.fill(values)
    except UnicodeEncodeError:
        # A lone surrogate is no text of JSON, so that no registrar can send it.
        return
    if filled is None:
        assert not all(values[name] for name in ("zone", "instance", "revision")) or values["zone"] in (".", "..")
        return
    parts = urlsplit(filled)
    assert (parts.scheme, parts.netloc, parts.path.count("/")) == ("https", "logs.example.com", 3)
    assert (unquote(parts.query), unquote(parts.fragment)) == (f"q={values['instance']}&z=1", values["revision"])


def test_a_link_without_its_value_is_left_out() -> None:
    """It would lead to everybody's logs; and one of dots alone would lead up."""
    link = LinkTemplate.parse("Logs=https://logs.example.com/{zone}", ENDPOINT_PLACEHOLDERS)
    values = dict.fromkeys(ENDPOINT_PLACEHOLDERS, "x")
    assert link.fill(values | {"zone": ""}) is None
    assert link.fill(values | {"zone": ".."}) is None
    assert link.fill(values | {"zone": "a/../b"}) == "https://logs.example.com/a%2F..%2Fb"
