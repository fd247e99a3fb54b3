"""The packages that streams need."""

import pytest

from registry.errors import BadSettingsError
from registry.http2 import installed


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install; where all is there, there is none."""
    installed.check_installed("REGISTRY_XDS_LISTEN")
    monkeypatch.setattr(installed, "_PACKAGES", {"h2": "h2", "no_such.module": "protobuf"})
    with pytest.raises(
        BadSettingsError, match=r"^REGISTRY_XDS_LISTEN needs protobuf: pip install headcount\[server,grpc\]$"
    ):
        installed.check_installed("REGISTRY_XDS_LISTEN")
