"""Cutting what is secret, or may be, out of Envoy's configuration.

Envoy itself leaves out what its definitions mark as sensitive, but not what stands in inline data, in headers to add,
in URLs and in free metadata. More is cut than has to be: an operator who needs a value knows where it comes from.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from wire.token_masking import without_tokens

CUT: Final = "(cut)"
"""The text in place of a value."""
_MAX_DEPTH = 100
"""Levels of nesting that are shown; Envoy's own configuration has 30."""
_SENSITIVE = re.compile(
    r"auth(?!ority)(?!enticat)|token|secret|passw|passphrase|api[-_]?key|cookie|session|credential|signature|hmac"
    r"|private|access[-_]?key|json_key|jwt|bearer|inline_(?:string|bytes|code)|\bpsk\b",
    re.IGNORECASE,
)
"""Names of values that are cut; of objects and lists, the values in them are looked at instead."""
_OPEN = re.compile(
    r"^(?::.*|x-envoy-.*|x-request-id|x-forwarded-(?:proto|host|port)|content-type|accept|accept-encoding|server|via"
    r"|user-agent|host|date|grpc-status|grpc-message|te)$",
    re.IGNORECASE,
)
"""Headers whose values may be shown where a configuration adds them."""
_PLAIN = re.compile(r"(?:_path|_name|_file|filename|_ms|_timeout|_count|type_url)$")
"""Ends of names that say where a secret is, and not what it is."""
_USER_INFO = re.compile(r"(?<=://)[^/@\s?#]*@")
_QUERY = re.compile(r"(?<=\?)[^\s#]+")
_PEM = re.compile(r"-----BEGIN ")
_SCHEMES = re.compile(r"\b(?:bearer|basic|digest|negotiate)\s+\S+", re.IGNORECASE)


class Redaction:
    """Copies configuration without what is secret, and counts what it cuts."""

    def __init__(self) -> None:
        self.cut = 0
        """The number of values that were cut."""

    def shown(self, value: Any, name: str = "", depth: int = 0) -> Any:  # noqa: ANN401  # any JSON
        """Return a JSON value without its secrets.

        Args:
            value: the value.
            name: the name of the field that it is in.
            depth: the levels around it.
        """
        if depth > _MAX_DEPTH:
            return self._cut()
        if isinstance(value, Mapping):
            return self._object(value, depth)
        if isinstance(value, list):
            return [self.shown(each, name, depth + 1) for each in value]
        if value and not isinstance(value, bool) and _is_sensitive(name):
            return self._cut()
        return self._text(value) if isinstance(value, str) else value

    def _object(self, value: Mapping[str, Any], depth: int) -> dict[str, Any]:
        header = value.get("key", value.get("name", value.get("header_name")))
        # {"key": …, "value": …} is a header that is added, or free metadata as Envoy lists it.
        added = isinstance(value.get("key"), str) and not _OPEN.match(str(header))
        named = isinstance(header, str) and bool(_SENSITIVE.search(header)) and not header.startswith("envoy.")
        shown = {}
        for field, content in value.items():
            whole = (added and field in ("value", "raw_value")) or (named and field in _VALUES)
            shown[field] = self._cut() if whole and content not in ("", None) else self.shown(content, field, depth + 1)
        return shown

    def _text(self, text: str) -> str:
        if _PEM.search(text):
            return self._cut()
        masked = without_tokens(_SCHEMES.sub(CUT, text))
        if "://" in masked:
            masked = _QUERY.sub(CUT, _USER_INFO.sub(f"{CUT}@", masked))
        self.cut += masked != text
        return masked

    def _cut(self) -> str:
        self.cut += 1
        return CUT


_VALUES = frozenset(
    {
        "value",
        "raw_value",
        "string_match",
        "exact_match",
        "contains_match",
        "prefix_match",
        "suffix_match",
        "safe_regex_match",
        "string_value",
        "default_value",
    }
)
"""Fields that hold the value of the header or the parameter that the object names."""


def _is_sensitive(name: str) -> bool:
    return bool(_SENSITIVE.search(name)) and not _PLAIN.search(name)
