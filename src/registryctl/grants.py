"""Grants: what options and ready-made sets of the command line say that a token or an identity may do."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from registryctl.errors import UsageError
from wire.spelling import spelling_hint

Grant = dict[str, Any]
"""A grant, as the API has it."""

VERBS = ("discover", "read", "register", "operate", "configure", "inspect", "debug", "observe", "admin")
"""The verbs that the registry knows."""
KINDS = ("registrar", "envoy", "operator", "machine")
"""The kinds of credentials; they are for people, and only grants decide."""
_MAX_FILE = 1_000_000
"""Bytes of a file of grants."""


class Preset(Struct, frozen=True):
    """A ready-made set of verbs.

    Attributes:
        kind: of the credential.
        verbs: what it may do.
        needs_service: whether services have to be named; otherwise all are meant.
        ttl: for how long a token of it is good; empty: for as long as the registry says.
    """

    kind: str
    verbs: tuple[str, ...]
    needs_service: bool = False
    ttl: str = ""


PRESETS = {
    "registrar": Preset("registrar", ("register",), needs_service=True),
    "envoy": Preset("envoy", ("discover",)),
    "operator": Preset("operator", ("read", "operate", "inspect", "observe")),
    # Taps and log levels show what users send, so they are for those who are called, and for a while.
    "on-call": Preset("operator", ("read", "operate", "inspect", "debug", "observe"), ttl="30d"),
    "prometheus": Preset("machine", ("read", "observe")),
    "admin": Preset("operator", VERBS, ttl="30d"),
}
"""Ready-made sets by their names."""


class GrantOptions(Struct, frozen=True):
    """Options of the command line that describe grants, as they were typed.

    Attributes:
        preset: the name of a ready-made set; empty: none.
        verbs: what is allowed.
        services: names, or prefixes with ``*`` at the end.
        addresses: where endpoints may be registered.
        instance: which instances may be registered; empty: as the preset or the registry says.
        file: a file of grants as the API has them; None: none.
        kind: of the credential; empty: as the preset says.
    """

    preset: str = ""
    verbs: Sequence[str] = ()
    services: Sequence[str] = ()
    addresses: Sequence[str] = ()
    instance: str = ""
    file: Path | None = None
    kind: str = ""


def preset_of(options: GrantOptions) -> Preset | None:
    """Return the ready-made set that the options name; None: they name none.

    Raises:
        UsageError: there is none of this name.
    """
    if not options.preset:
        return None
    if options.preset not in PRESETS:
        raise UsageError(f"--for: there is no set {options.preset!r}", spelling_hint(options.preset, PRESETS))
    return PRESETS[options.preset]


def kind_of(options: GrantOptions, otherwise: str) -> str:
    """Return the kind of the credential.

    Raises:
        UsageError: there is no such kind.
    """
    preset = preset_of(options)
    kind = options.kind or (preset.kind if preset else otherwise)
    if kind not in KINDS:
        raise UsageError(f"--kind: {kind!r} is no kind of credential", spelling_hint(kind, KINDS))
    return kind


def grants_of(options: GrantOptions, *, bound: bool = False) -> list[Grant]:
    """Return the grants that options describe.

    Args:
        options: of the command line.
        bound: whether registrations are bound to the sender's own address and session unless an option says otherwise,
            and Envoys of the session may discover: so for AWS roles, whose many tasks have one identity.

    Raises:
        UsageError: the options name nothing, or what cannot be.
    """
    if options.file is not None:
        if options.preset or options.verbs or options.services or options.addresses or options.instance:
            raise UsageError("--grants: a file says all; leave out --for, --verb, --service, --address and --instance")
        return _read(options.file)
    preset = preset_of(options)
    verbs = _verbs(options, preset)
    if preset is not None and preset.needs_service and not options.services:
        raise UsageError(
            f"--for {options.preset}: name what it registers by --service", "like --service shop, or --service 'shop-*'"
        )
    grant: Grant = {"verbs": verbs, "services": list(options.services) or ["*"]}
    if "register" in verbs:
        grant |= _binding(options, bound=bound)
    elif options.addresses or options.instance:
        raise UsageError("--address and --instance are about registrations, and --verb register is missing")
    discovers = bound and options.preset == "registrar" and "discover" not in verbs
    return [grant, *([{"verbs": ["discover"], "services": ["*"]}] if discovers else [])]


def grant_text(grant: Grant) -> str:
    """Return a grant in words: ``register shop, web-* at peer, its own instances``."""
    services = ", ".join("everything" if service == "*" else service for service in grant["services"])
    verbs = "every verb" if set(grant["verbs"]) >= set(VERBS) else ", ".join(grant["verbs"])
    if "register" not in grant["verbs"]:
        return f"{verbs}: {services}"
    where = f" at {', '.join(grant['addresses'])}" if grant["addresses"] else ""
    return f"{verbs}: {services}{where}{', its own instances' if grant['instance'] == 'session' else ''}"


def _verbs(options: GrantOptions, preset: Preset | None) -> list[str]:
    for verb in options.verbs:
        if verb not in VERBS:
            raise UsageError(f"--verb: the registry knows no verb {verb!r}", spelling_hint(verb, VERBS))
    verbs = dict.fromkeys([*(preset.verbs if preset else ()), *options.verbs])
    if not verbs:
        raise UsageError(
            "name what is allowed: --verb, a ready-made set by --for, or --grants FILE",
            f"verbs are {', '.join(VERBS)}; sets are {', '.join(PRESETS)}",
        )
    return list(verbs)


def _binding(options: GrantOptions, *, bound: bool) -> Grant:
    if options.instance not in ("", "any", "session"):
        raise UsageError(f"--instance: {options.instance!r} is neither any nor session")
    addresses = list(options.addresses) or (["peer"] if bound else [])
    instance = options.instance or ("session" if bound else "")
    return ({"addresses": addresses} if addresses else {}) | ({"instance": instance} if instance else {})


def _read(path: Path) -> list[Grant]:
    """Return the grants of a file, or of standard input for ``-``; the registry judges them."""
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(_MAX_FILE)
        else:
            with path.open("rb") as file:
                content = file.read(_MAX_FILE)
        return msgspec.json.decode(content, type=list[Grant])
    except OSError as error:
        raise UsageError(f"--grants {path}: {error.strerror or error}") from None
    except msgspec.DecodeError as error:
        example = '[{"verbs": ["register"], "services": ["shop"]}]'
        raise UsageError(f"--grants {path}: {error}", f"it has to be a JSON list like {example}") from None
