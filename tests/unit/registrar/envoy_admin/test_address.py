"""The address of Envoy's admin interface."""

import pytest

from registrar.config.conversion import ConversionError, convert
from registrar.config.settings import Settings
from registrar.envoy_admin.address import EnvoyAdminAddress


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://127.0.0.1:9901", "http://127.0.0.1:9901"),
        ("127.0.0.1:9901", "http://127.0.0.1:9901"),
        ("http://127.0.0.1:9901/", "http://127.0.0.1:9901"),
        ("[::1]:9901", "http://[::1]:9901"),
        ("unix:/run/envoy/admin.sock", "unix:/run/envoy/admin.sock"),
        ("unix:///run/envoy/admin.sock", "unix:/run/envoy/admin.sock"),
    ],
)
def test_an_address_is_read_and_shown(text: str, shown: str) -> None:
    """A URL, the same without its scheme, and a unix socket."""
    address = EnvoyAdminAddress.parse(text)
    assert str(address) == shown
    assert EnvoyAdminAddress.parse(shown) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://10.0.0.5:9901", "not a loopback address"),
        ("http://0.0.0.0:9901", "write it like"),
        ("https://127.0.0.1:9901", "write it like"),
        ("http://127.0.0.1", "write it like"),
        ("http://127.0.0.1:9901/stats", "write it like"),
        ("localhost:9901", "write it like"),
        ("unix:run/admin.sock", "not an absolute path"),
        (f"unix:/{'a' * 107}", "not an absolute path"),
        ("", "write it like"),
    ],
)
def test_an_address_of_others_and_a_text_that_is_none_are_refused(text: str, reason: str) -> None:
    """The admin interface of another machine is never read: whoever reaches it can stop Envoy."""
    with pytest.raises(ValueError, match=reason):
        EnvoyAdminAddress.parse(text)


@pytest.mark.parametrize(("interval", "accepted"), [("0", True), ("1s", True), ("10s", True), ("0.5s", False)])
def test_an_interval_is_a_second_at_least_or_off(interval: str, accepted: bool) -> None:
    """Readings of 20 clusters cost Envoy 1 to 2 ms each."""
    if accepted:
        convert({"traffic_interval": interval}, Settings)
        return
    with pytest.raises(ConversionError, match="traffic_interval 500ms is less than 1s; write 10s, or 0"):
        convert({"traffic_interval": interval}, Settings)
