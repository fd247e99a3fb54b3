"""Taking secrets out of what is handed to somebody else: by the names of fields, and by the look of values."""

import re
from typing import Any

REDACTED = "[redacted]"

# A field with such a name holds a secret, whatever it looks like.
_SECRET_NAME = re.compile(
    r"(^|[-_.])(authorization|cookie|credentials?|passw(or)?d|passphrase|pwd|secrets?|tokens?|api[-_]?key|access[-_]?key"
    r"|private[-_]?key|inline[-_]?bytes|hmac|signature|session[-_]?key)([-_.]|$)",
    re.IGNORECASE,
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Such a text is or holds one, whatever its field is called; the first group stays.
_SECRET_VALUES = (
    re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/@\"']+@", re.IGNORECASE),
    re.compile(r"\b((?:bearer|basic|digest|negotiate)\s+)[^\s\"',;]+", re.IGNORECASE),
    re.compile(r"\b((?:password|passwd|pwd|token|secret|api_?key|access_?key)\s*[=:]\s*)[^\s\"'&,;]+", re.IGNORECASE),
    re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL),
    re.compile(r"()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"),
    re.compile(r"()\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
)
# A header is written as two fields, its name and its value.
_NAMES, _VALUES = ("key", "name", "header_name"), ("value", "raw_value", "string_value")


def redact_text(text: str) -> str:
    """Return a text without what looks like a secret in it."""
    for pattern in _SECRET_VALUES:
        text = pattern.sub(_keep_first, text)
    return text


def redact(document: Any) -> Any:  # noqa: ANN401  # any JSON
    """Return a JSON value without secrets."""
    if isinstance(document, dict):
        spoken = any(isinstance(document.get(name), str) and _is_secret(document[name]) for name in _NAMES)
        return {name: _redact_field(name, value, secret=spoken and name in _VALUES) for name, value in document.items()}
    if isinstance(document, list):
        return [redact(item) for item in document]
    return redact_text(document) if isinstance(document, str) else document


def _redact_field(name: str, value: Any, *, secret: bool) -> Any:  # noqa: ANN401  # any JSON
    if (secret or _is_secret(name)) and not isinstance(value, bool | None):
        # A file's name is no secret, and says where to look.
        return value if isinstance(value, dict) and value.keys() == {"filename"} else REDACTED
    return redact(value)


def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(_HUMP.sub("_", name)) is not None


def _keep_first(found: re.Match[str]) -> str:
    at = "@" if "://" in found[1] else ""
    return f"{found[1]}{REDACTED}{at}"
