"""The conversion between plain values and settings, with errors that name the key."""

import re
from typing import Any, TypeVar

import msgspec

from registrar.checks.http import StatusRange
from registrar.config.fallback_url import FallbackUrl
from registrar.config.listen import ListenAddress
from registrar.config.secret import Secret
from registrar.config.switch import Switch
from registrar.duration import Duration
from registrar.envoy_admin.address import EnvoyAdminAddress
from registrar.identity.spec import EndpointSpec
from registrar.registry_client.registries import RegistryUrls
from wire.validation_message import predicate

T = TypeVar("T")

_TEXTUAL = (
    Duration,
    EndpointSpec,
    EnvoyAdminAddress,
    FallbackUrl,
    ListenAddress,
    RegistryUrls,
    Secret,
    StatusRange,
    Switch,
)
_WITH_PLACE = re.compile(r"(?P<reason>.*) - at `\$\.?(?P<place>.*)`", re.DOTALL)


class ConversionError(ValueError):
    """The value is not valid for its setting.

    Attributes:
        place: the key of the invalid part, like ``checks[0].interval``; empty for the value itself.
        reason: the error, as the end of a sentence that begins with the place.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}" if place else reason)
        self.place = place
        self.reason = reason


def convert(value: object, kind: type[T]) -> T:
    """Convert ``value`` to a ``kind``; text is accepted for numbers, booleans and the settings' own types.

    Raises:
        ConversionError: the value is invalid; the message is ``place: reason``.
    """
    try:
        converted = msgspec.convert(value, kind, strict=False, dec_hook=_decode)
        # A value that cannot be encoded could be neither sent nor printed.
        msgspec.json.encode(converted, enc_hook=str)
    except (UnicodeEncodeError, OverflowError) as error:
        raise ConversionError("", "expected UTF-8 text, and numbers that fit into 64 bits") from error
    except msgspec.ValidationError as error:
        match = _WITH_PLACE.fullmatch(str(error))
        place, reason = (match["place"], match["reason"]) if match else ("", str(error))
        raise ConversionError(place, predicate(reason) or reason) from error
    return converted


def render(settings: object) -> str:
    """Return settings as indented JSON, in the notation of the files."""
    return msgspec.json.format(msgspec.json.encode(settings, enc_hook=str), indent=2).decode()


def _decode(kind: type, value: object) -> Any:  # noqa: ANN401 - msgspec's hook returns any kind
    if issubclass(kind, _TEXTUAL):
        return kind.parse(value)
    raise NotImplementedError
