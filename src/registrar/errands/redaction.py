"""Cutting what is secret, or may be, out of Envoy's configuration.

Envoy itself leaves out what its definitions mark as sensitive, but not what stands in inline data, in headers to add or
to match, in URLs, in free metadata, and in the reasons for which it refused a configuration, which quote all of it.
More is cut than has to be: an operator who needs a value knows where it comes from.
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
_SENSITIVE_IF_FREE = re.compile(
    r"(?:^|[-_.\s])(?:pass|pwd|pw|pin|key|keys|creds?|dsn|salt)$|[a-z]Keys?$", re.IGNORECASE
)
"""Names of values that are cut besides in free data, whose names are people's own and not Envoy's."""
_FREE = frozenset({"metadata", "filter_metadata", "static_layer", "key_values"})
"""Fields whose content has no definition; below a sensitive name in it, every value is cut."""
_FREE_TYPE = re.compile(r"(?:\.TypedStruct|google\.protobuf\.(?:Struct|Value))$")
"""Types of messages without a definition."""
_LONE_VALUE = re.compile(r"google\.protobuf\.(?:StringValue|BytesValue)$")
"""Types of a configuration that only an extension understands, such as a program of WebAssembly."""
_OPEN = re.compile(
    r"^(?::.*|x-envoy-.*|x-request-id|x-forwarded-(?:proto|host|port)|content-type|accept|accept-encoding|server|via"
    r"|user-agent|host|date|grpc-status|grpc-message|te)$",
    re.IGNORECASE,
)
"""Headers whose values may be shown where a configuration adds them."""
_PLAIN = re.compile(r"(?:_path|_name|_file|filename|_ms|_timeout|_count|type_url)$")
"""Ends of names that say where a secret is, and not what it is."""
_USER_INFO = re.compile(r"(?<=://)[^/\s?#]*@|(?<![^\s'\"=,;(])[^\s:/@]{1,64}:[^\s/@]{1,256}@(?=\w)")
_QUERY = re.compile(r"(?<=\?)[^\s#]+")
_ASSIGNED = re.compile(
    r"((?:passw(?:or)?d|passphrase|pwd|secret|token|api[-_]?key|access[-_]?key)['\"]?\s*[=:]\s*)[^\s,;&]+",
    re.IGNORECASE,
)
"""A value behind its name in a text, as in the connection strings of databases."""
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*(?:"|$)', re.DOTALL)
"""A string in the debug text of a message; the last one may be cut off."""
_DEBUG_TEXT = "goo.gle/debug"
"""The beginning of the debug text of a message in protobuf's own words."""
_PEM = re.compile(r"-----BEGIN ")
_SCHEMES = re.compile(r"\b(?:bearer|basic|digest|negotiate)\s+\S+", re.IGNORECASE)


class Redaction:
    """Copies configuration without what is secret, and counts what it cuts."""

    def __init__(self) -> None:
        self.cut = 0
        """The number of values that were cut."""

    def shown(
        self,
        value: Any,  # noqa: ANN401  # any JSON
        name: str = "",
        depth: int = 0,
        *,
        free: bool = False,
        secret: bool = False,
    ) -> Any:  # noqa: ANN401  # any JSON
        """Return a JSON value without its secrets.

        Args:
            value: the value.
            name: the name of the field that it is in.
            depth: the levels around it.
            free: whether it is in data without a definition.
            secret: whether a name around it says that all of it is secret.
        """
        if depth > _MAX_DEPTH:
            return self._cut()
        free = free or name in _FREE
        secret = secret or (free and _is_sensitive(name, free=True))
        if isinstance(value, Mapping):
            return self._object(value, name, depth, free=free, secret=secret)
        if isinstance(value, list):
            return [self.shown(each, name, depth + 1, free=free, secret=secret) for each in value]
        if value and not isinstance(value, bool) and (secret or _is_sensitive(name, free=free)):
            return self._cut()
        return self._text(value, name) if isinstance(value, str) else value

    def _object(self, value: Mapping[str, Any], name: str, depth: int, *, free: bool, secret: bool) -> dict[str, Any]:
        free = free or bool(_FREE_TYPE.search(str(value.get("@type", ""))))
        whole = _whole_fields(value, name)
        shown = {}
        for field, content in value.items():
            if field in whole and content not in ("", None):
                shown[field] = self._cut()
            else:
                # What the type of a message is, is no secret.
                inner = secret and field != "@type"
                shown[field] = self.shown(content, field, depth + 1, free=free, secret=inner)
        return shown

    def _text(self, text: str, name: str) -> str:
        if _PEM.search(text):
            return self._cut()
        masked = without_tokens(_ASSIGNED.sub(rf"\1{CUT}", _SCHEMES.sub(CUT, text)))
        if name == "details" or _DEBUG_TEXT in masked:
            masked = _QUOTED.sub(f'"{CUT}"', masked)
        masked = _USER_INFO.sub(f"{CUT}@", masked)
        if "://" in masked or (masked.startswith("/") and name != "regex"):
            masked = _QUERY.sub(CUT, masked)
        self.cut += masked != text
        return masked

    def _cut(self) -> str:
        self.cut += 1
        return CUT


_MATCHES = frozenset(
    {
        "string_match",
        "exact_match",
        "contains_match",
        "prefix_match",
        "suffix_match",
        "safe_regex_match",
    }
)
"""Fields that hold the value that the header or the parameter of the object must have, as some have as a password."""
_VALUES = _MATCHES | {"value", "raw_value", "string_value", "default_value"}
"""Fields that hold the value of what the object names."""


def _whole_fields(value: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return the fields of an object that are cut whole, because of what stands beside them."""
    header = value.get("key", value.get("name", value.get("header_name")))
    is_open = isinstance(header, str) and bool(_OPEN.match(header))
    fields: frozenset[str] = frozenset()
    if name in ("send", "receive"):
        # The bytes of a health check by TCP, which may log in.
        fields |= {"text", "binary"}
    if _LONE_VALUE.search(str(value.get("@type", ""))):
        fields |= {"value"}
    if isinstance(value.get("key"), str) and not is_open:
        # A header that is added, or free metadata as Envoy lists it.
        fields |= {"value", "raw_value"}
    if isinstance(header, str) and not is_open:
        is_secret = _is_named_secret(header) and not header.startswith("envoy.")
        fields |= _VALUES if is_secret else _MATCHES
    return fields


def _is_named_secret(header: str) -> bool:
    return bool(_SENSITIVE.search(header) or _SENSITIVE_IF_FREE.search(header))


def _is_sensitive(name: str, *, free: bool) -> bool:
    sensitive = _SENSITIVE.search(name) or (free and _SENSITIVE_IF_FREE.search(name))
    return bool(sensitive) and not _PLAIN.search(name)
