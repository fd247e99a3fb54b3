"""Settings of ``registryctl``: from options, which win, or from REGISTRYCTL_* in the environment."""

import getpass
import re
import socket
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from msgspec import Struct

from registryctl.errors import UsageError
from registryctl.redaction import redact_text
from registryctl.token import AccessToken
from wire.duration import parse_duration
from wire.spelling import spelling_hint

_PREFIX = "REGISTRYCTL_"
MAX_ACTOR = 128
"""Characters of an actor's name, as the API takes it in X-Actor."""
_NOT_OF_AN_ACTOR = re.compile(r"[^A-Za-z0-9 ._@:+/-]")


class Variable(Struct, frozen=True):
    """Description of one variable, as the reference page prints it."""

    name: str
    type: str
    default: str
    meaning: str


VARIABLES = (
    Variable(
        "REGISTRYCTL_URL",
        "URLs",
        "http://127.0.0.1:8080",
        "Addresses of the registry, separated by commas. The first that answers is asked; `check` looks at all.",
    ),
    Variable(
        "REGISTRYCTL_TIMEOUT",
        "duration",
        "5s",
        "Longest wait for an answer. Shorter finds a dead address sooner and gives up on a busy one.",
    ),
    Variable(
        "REGISTRYCTL_ACTOR",
        "text",
        "you@this machine",
        "Who asks, for the history. Not verified.",
    ),
    Variable(
        "REGISTRYCTL_TOKEN",
        "text",
        "unset",
        "Token to send to every address. It wins over those that `registryctl login` stored.",
    ),
    Variable(
        "REGISTRYCTL_TOKEN_FILE",
        "file",
        "unset",
        "File that holds the token to send, instead of `REGISTRYCTL_TOKEN`.",
    ),
    Variable(
        "REGISTRYCTL_CA_FILE",
        "file",
        "unset",
        "Authorities in PEM that may sign the registry's certificate, in place of the system's.",
    ),
    Variable(
        "REGISTRYCTL_CERT_FILE",
        "file",
        "unset",
        "Your own certificate in PEM, for a registry that knows you by one.",
    ),
    Variable(
        "REGISTRYCTL_KEY_FILE",
        "file",
        "unset",
        "Its key in PEM, without a passphrase. Unset: it is in the certificate's file.",
    ),
)
_DEFAULTS = {variable.name: variable.default for variable in VARIABLES}


class Settings(Struct, frozen=True):
    """Settings of one run.

    Attributes:
        urls: addresses of the registry, in the order in which they are asked.
        timeout: longest wait for an answer, in seconds.
        actor: the name that the history gets.
        tokens: the token to send, by URL; a URL without one gets none.
        ca_file: authorities that may sign the registry's certificate; empty: the system's.
        cert_file: the operator's own certificate; empty for none.
        key_file: its key; empty where it is in the certificate's file.
    """

    urls: tuple[str, ...]
    timeout: float
    actor: str
    tokens: Mapping[str, AccessToken] = {}
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


def read_settings(
    environ: Mapping[str, str], urls: Sequence[str] = (), timeout: str | None = None, actor: str | None = None
) -> Settings:
    """Return the settings from options and environment.

    Raises:
        UsageError: a value cannot be used, or a variable is misspelt.
    """
    _refuse_unknown(environ)
    given = list(urls) or environ.get("REGISTRYCTL_URL", "").split(",")
    wanted = [url.strip().rstrip("/") for url in given if url.strip()] or [_DEFAULTS["REGISTRYCTL_URL"]]
    for url in wanted:
        check_url(url, "--url" if urls else "REGISTRYCTL_URL")
    duration = timeout or environ.get("REGISTRYCTL_TIMEOUT") or _DEFAULTS["REGISTRYCTL_TIMEOUT"]
    seconds = read_duration(duration, "--timeout" if timeout else "REGISTRYCTL_TIMEOUT")
    name = actor or environ.get("REGISTRYCTL_ACTOR") or _you()
    if _NOT_OF_AN_ACTOR.search(name) or len(name) > MAX_ACTOR:
        where = "--actor" if actor else "REGISTRYCTL_ACTOR"
        allowed = f"letters, digits, spaces and . _ @ : + / -, {MAX_ACTOR} at most"
        raise UsageError(f"{where}: {name!r} is no name of an actor: allowed are {allowed}")
    ca_file, cert_file, key_file = (environ.get(f"REGISTRYCTL_{name}_FILE", "") for name in ("CA", "CERT", "KEY"))
    if key_file and not cert_file:
        raise UsageError("REGISTRYCTL_KEY_FILE needs REGISTRYCTL_CERT_FILE")
    unique = tuple(dict.fromkeys(wanted))
    return Settings(unique, seconds, name, ca_file=ca_file, cert_file=cert_file, key_file=key_file)


def read_duration(text: str, where: str) -> float:
    """Return the seconds of a duration that an option or a variable gives.

    Raises:
        UsageError: the text is no duration, or not longer than zero.
    """
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
    if seconds <= 0:
        raise UsageError(f"{where}: {text!r} is not longer than 0; give a duration like 5s or 30m")
    return seconds


def check_url(url: str, where: str) -> None:
    """Check that a text is the URL of a server.

    Raises:
        UsageError: it is no such URL.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"{where}: {redact_text(url)!r} is no URL like http://10.0.0.9:8080")


def _you() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # A container's user has no entry in passwd.
        name = "unknown"
    return _NOT_OF_AN_ACTOR.sub("-", f"{name}@{socket.gethostname()}")[:MAX_ACTOR]


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    unknown = sorted(name for name in environ if name.startswith(_PREFIX) and name not in _DEFAULTS)
    if unknown:
        raise UsageError(f"{unknown[0]}: unknown variable; {spelling_hint(unknown[0], _DEFAULTS, prefix=_PREFIX)}")
