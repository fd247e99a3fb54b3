"""The self-test finds an h2 that counts its windows otherwise."""

import pytest

from registry.http2 import selftest
from registry.http2.sender import Sender
from registry.http2.stream import Stream


def test_the_installed_h2_fits() -> None:
    """Frames may pass beside the h2 that is installed."""
    assert selftest.fits()


def test_a_window_that_is_not_counted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """If h2's windows were other attributes, plain h2 would be used."""
    window_of = Sender._window_of

    def forgetful(sender: Sender, stream: Stream) -> int:
        return max(window_of(sender, stream), 1)

    monkeypatch.setattr(Sender, "_window_of", forgetful)
    assert not selftest.fits()


def test_an_attribute_that_is_gone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception within the self-test leads to plain h2 too."""

    def fail(sender: Sender, stream: Stream, size: int) -> None:
        raise AttributeError("outbound_flow_control_window")

    monkeypatch.setattr(Sender, "_send_frame", fail)
    assert not selftest.fits()
