"""Redaction of secrets in text and JSON: by the names of fields, and by the look of values.

Every pattern takes linear time, since its text may come from a stranger: a pattern begins only where the run of
letters before it ends, and never gives back what it has consumed (`++`, `*+`).
"""

import re
from typing import Any

import msgspec

REDACTED = "[redacted]"
"""Stands where a secret was."""

# A field with such a name holds a secret, whatever its value looks like.
_SECRET_NAME = re.compile(
    r"(^|[-_.])(authorization|cookies?|credentials?|pgpass(word)?|passw(or)?d|passphrase|passcode|pwd|secrets?|tokens?|jwt"
    r"|(api|access|account|encryption|master|private|secret|session|shared|signing|ssh|storage)[-_]?keys?|inline[-_]?bytes"
    r"|hmac|sig|signature|session[-_]?id)([-_.]|$)|[-_.]pass$",
    re.IGNORECASE,
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PRINCIPALS = ("principal", "actor", "owner", "created_by")
"""Fields with the name of a principal; that of a static token begins with ``token:``, and is no secret."""
_NAMED_TOKEN = re.compile(r"token:(?!hc[st]_)[A-Za-z0-9._-]{1,64}(?=$| as | from )")
_IN_HEADER = re.compile(r"authorization|cookie", re.IGNORECASE)
"""Names of headers whose value reaches to the end of its line."""
_SCHEME = re.compile(r"(?:bearer|basic|digest|negotiate|apikey|token|aws4-hmac-sha256)[ \t]+", re.IGNORECASE)

_ASSIGNED = re.compile(
    r"(?<![A-Za-z0-9_.-])(?P<name>[A-Za-z0-9_.-]++)"
    r"(?P<separator>\\{0,8}+[\"']?+[ \t]{0,8}+(?:=>|:=|[=:])(?:[ \t]|\r?\n[ \t]){0,8}+)"
)
# The forms of a value behind the name of a secret. Each ends where the secret certainly ends, or later.
_QUOTED = re.compile(
    r"(?P<quote>[\"'])(?:\\.|(?!(?P=quote))[^\\])*+(?:(?P=quote)|$)"
    r"|(?P<escaped>\\{1,8}+[\"'])(?:(?!(?<!\\)(?P=escaped)).)*+(?:(?P=escaped)|$)",
    re.DOTALL,
)
_BLOCK = re.compile(r"[|>][-+0-9]{0,2}+[ \t]*+\r?\n(?:[ \t]++[^\n]*+(?:\n|$)|\n)++")
_FLOW = re.compile(r"\[[^\]\n]*+\]?+|\{[^}\n]*+\}?+")
_TO_LINE_END = re.compile(r"[^\r\n\"']++")
_BARE = re.compile(r"(?:[^\s\"'&,;<>\\]|\\(?![\"'])|[,;](?![\s,;]|$)|&(?![A-Za-z0-9_.%-]{1,64}+=))++")
_LINE_START = re.compile(r"(?:^|\n)[ \t]{0,80}(?:[-*<>][ \t]{1,8})?$")
_ELEMENT = re.compile(r"(?P<before><)(?P<name>[A-Za-z0-9_.-]++)(?P<separator>[^<>]*+>)(?P<value>[^<]++)")
_FLAG = re.compile(
    r"(?<![A-Za-z0-9_.-])(?P<before>--)(?P<name>[A-Za-z0-9_.-]++)(?P<separator>[ \t]++)(?P<value>[^\s-][^\s\"']*+)"
)
_URL = re.compile(r"(?<![A-Za-z0-9+.-])(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*+://)(?P<rest>[^\s\"'<>]++)")
_TOKEN = re.compile(r"(?<![A-Za-z0-9_.-])[A-Za-z0-9_.-]{14,}+")
_SIGNED = re.compile(r"(?:^|(?<=[^A-Za-z0-9]))eyJ")
# Such a text is a secret, whatever it is called; the first group stays.
_LOOKS = (
    re.compile(
        r"(?<![A-Za-z0-9])((?:bearer|basic|digest|negotiate)[ \t]{1,8}+)(?!\[redacted\])[^\s\"',;\\]++", re.IGNORECASE
    ),
    re.compile(r"(?<![A-Za-z0-9-])((?:-u|--user)[ =]?+)[^\s\"'-][^\s\"':]*+:[^\s\"']++"),
    re.compile(
        r"()-----BEGIN [A-Z ]{0,40}?PRIVATE KEY(?: BLOCK)?-----(?:(?!-----END ).)*+"
        r"(?:-----END [A-Z ]{0,40}+-----)?",
        re.DOTALL,
    ),
    re.compile(r"()(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    re.compile(r"()(?<![A-Za-z0-9])(?:gh[opsru]_|github_pat_|glpat-|xox[abprs]-|hc[st]_)[A-Za-z0-9_-]{16,}+"),
)
# A header is written as two fields, its name and its value.
_NAMES, _VALUES = ("key", "name", "header_name"), ("value", "raw_value", "string_value")


def redact_text(text: str) -> str:
    """Return a text in which secrets are redacted; text that is JSON is redacted as JSON."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return msgspec.json.encode(redact(msgspec.json.decode(text))).decode()
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            # The text only begins like JSON.
            pass
    return _redact_plain(text)


def _redact_plain(text: str) -> str:
    for pattern in _LOOKS:
        text = pattern.sub(rf"\1{REDACTED}", text)
    text = _URL.sub(_redact_url, text)
    text = _TOKEN.sub(_redact_token, text)
    text = _redact_assignments(text)
    for pattern in (_ELEMENT, _FLAG):
        text = pattern.sub(_redact_named, text)
    return text


def _redact_assignments(text: str) -> str:
    """Redact values that are assigned to the name of a secret, in the many ways to write that."""
    pieces = []
    kept = position = 0
    while assignment := _ASSIGNED.search(text, position):
        position = assignment.end()
        if not _is_secret(assignment["name"]):
            continue
        begin, position, instead = _value(text, assignment)
        pieces += [text[kept:begin], instead]
        kept = position
    return "".join([*pieces, text[kept:]])


def _value(text: str, name: re.Match[str]) -> tuple[int, int, str]:
    """Return where the value behind a name begins and ends, and its replacement."""
    begin = name.end()
    if quoted := _QUOTED.match(text, begin):
        quote = quoted["quote"] or quoted["escaped"]
        return begin, quoted.end(), f"{quote}{REDACTED}{quote}"
    if block := _BLOCK.match(text, begin):
        return begin, block.end(), f"{REDACTED}\n" if block[0].endswith("\n") else REDACTED
    if scheme := _SCHEME.match(text, begin):
        begin = scheme.end()
    in_header = _IN_HEADER.search(name["name"])
    if text.startswith(REDACTED, begin) and not in_header:
        return begin, begin + len(REDACTED), REDACTED
    whole_line = in_header or (
        name["separator"].endswith((" ", "\t")) and _LINE_START.search(text[max(0, name.start() - 90) : name.start()])
    )
    value = None if in_header else _FLOW.match(text, begin)
    value = value or (_TO_LINE_END if whole_line else _BARE).match(text, begin)
    return (begin, value.end(), REDACTED) if value else (begin, begin, "")


def _redact_url(url: re.Match[str]) -> str:
    """Redact user and password of a URL, also where the password holds an unescaped @ or /."""
    rest = url["rest"]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    _, colon, port = authority.rpartition(":")
    if "@" in authority:
        end = authority.rindex("@")
    elif "@" in rest and colon and not port.isdigit():
        end = rest.rindex("@")
    else:
        return url[0]
    return f"{url['scheme']}{REDACTED}{rest[end:]}"


def _redact_token(word: re.Match[str]) -> str:
    """Redact a signed token (JWT): two dots behind the encoded beginning of a JSON object."""
    start = _SIGNED.search(word[0])
    if start is None or word[0].count(".", start.start()) < 2:
        return word[0]
    return word[0][: start.start()] + REDACTED


def _redact_named(field: re.Match[str]) -> str:
    if not _is_secret(field["name"]):
        return field[0]
    return f"{field['before']}{field['name']}{field['separator']}{REDACTED}"


def redact(document: Any) -> Any:  # noqa: ANN401  # any JSON
    """Return a JSON value without secrets."""
    if isinstance(document, dict):
        named = any(isinstance(document.get(name), str) and _is_secret(document[name]) for name in _NAMES)
        return {name: _redact_field(name, value, secret=named and name in _VALUES) for name, value in document.items()}
    if isinstance(document, list):
        return [redact(item) for item in document]
    return redact_text(document) if isinstance(document, str) else document


def _redact_field(name: str, value: Any, *, secret: bool) -> Any:  # noqa: ANN401  # any JSON
    if (secret or _is_secret(name)) and not isinstance(value, bool | None):
        # A file's name is no secret, and says where to look.
        return value if isinstance(value, dict) and value.keys() == {"filename"} else REDACTED
    if name in _PRINCIPALS and isinstance(value, str) and (principal := _NAMED_TOKEN.match(value)):
        return principal[0] + redact_text(value[principal.end() :])
    return redact(value)


def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(_HUMP.sub("_", name)) is not None
