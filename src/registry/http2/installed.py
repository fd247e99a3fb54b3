"""Whether the packages of streams are installed. It imports none of them itself, so that anybody may ask."""

from importlib.util import find_spec
from typing import Final

from registry.errors import BadSettingsError

_PACKAGES: Final = {"h2": "h2", "google.protobuf": "protobuf"}
"""The packages that the extra `grpc` brings, by what they are imported as."""


def check_installed(setting: str) -> None:
    """Refuse a setting that needs the extra.

    Raises:
        BadSettingsError: it is not installed.
    """
    missing = [package for module, package in _PACKAGES.items() if not _is_there(module)]
    if missing:
        raise BadSettingsError(f"{setting} needs {' and '.join(missing)}: pip install headcount[server,grpc]")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # The package around it is not there either.
        return False
