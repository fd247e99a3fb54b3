"""``registrar envoy-setup``: prepare the directory from which the Envoy beside this process starts."""

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from registrar.commands.bootstrap import overlay
from registrar.commands.flags import add_flags, settings_of
from registrar.commands.login import LOGIN_TIMEOUT, write_envoy_token
from registrar.config.settings import Settings
from registrar.endpoint.endpoints import identity_sources
from registrar.errors import ConfigurationError, MetadataUnavailable
from registrar.event_log import configure_logs
from registrar.identity.resolver import Identity, resolve_identity
from wire.atomic_file import PUBLIC, replace_file
from wire.envoy_token import TOKEN_DIRECTORY, TOKEN_FILE, prepare_token_files

BOOTSTRAP_VARIABLE = "ENVOY_BOOTSTRAP"
"""Variable that has the bootstrap of the service's Envoys as JSON, where no file is named."""
BOOTSTRAP_FILE = "bootstrap.json"
"""The file with the bootstrap of this task's Envoy, beside its token."""
_DIRECTORY_MODE = 0o2750
"""Envoy's group may read, and what is written later belongs to that group too."""
_HOW = f"set {BOOTSTRAP_VARIABLE} to what `registryctl mesh bootstrap SERVICE` prints, or name a file by --bootstrap"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for bootstrap and owner, and one for each setting."""
    parser.add_argument(
        "--bootstrap",
        metavar="<file>",
        default="",
        help="JSON of the bootstrap that the service's Envoys share; - is standard input. Default: the variable "
        f"{BOOTSTRAP_VARIABLE}.",
    )
    parser.add_argument(
        "--directory",
        metavar="<directory>",
        default="",
        help=f"Where to write. Default: the directory of REGISTRAR_ENVOY_TOKEN_FILE, else {TOKEN_DIRECTORY}.",
    )
    parser.add_argument(
        "--owner",
        metavar="<uid:gid>",
        default="",
        help="Give the directory to the registrar's user and Envoy's group, like 10001:101, and go on as that user. It "
        "takes root. Unset: everything stays as it is.",
    )
    add_flags(parser)


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Return 0 when Envoy can start, be it without a token, otherwise 1.

    Raises:
        ConfigurationError: the settings or the bootstrap are invalid, or the directory cannot be written.
    """
    settings = settings_of(arguments)
    configure_logs(settings.log_level)
    bootstrap = _bootstrap(arguments.bootstrap, os.environ)
    owner = _owner(arguments.owner)
    directory = _directory(arguments.directory, settings)
    try:
        identity = asyncio.run(resolve_identity(identity_sources(settings, os.environ)))
    except MetadataUnavailable as error:
        sys.stderr.write(f"registrar: no bootstrap: {error}\n")
        return 1
    try:
        _prepare(directory, Path(settings.envoy_token_file).name or TOKEN_FILE, bootstrap, identity, owner)
    except OSError as error:
        raise ConfigurationError([f"{error.filename or directory}: {error.strerror or error}"]) from error
    sys.stderr.write(f"registrar: wrote {directory / BOOTSTRAP_FILE} for node {identity.instance_id}\n")
    _log_in(settings)
    return 0


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``over`` merged into ``base`` as Envoy merges --config-yaml: objects by field, lists appended."""
    result = dict(base)
    for key, value in over.items():
        there = result.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            result[key] = merged(there, value)
        elif isinstance(there, list) and isinstance(value, list):
            result[key] = [*there, *value]
        else:
            result[key] = value
    return result


def _directory(path: str, settings: Settings) -> Path:
    if path:
        return Path(path)
    return Path(settings.envoy_token_file).parent if settings.envoy_token_file else Path(TOKEN_DIRECTORY)


def _bootstrap(file: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the bootstrap that the service's Envoys share.

    Raises:
        ConfigurationError: there is none, or it is no JSON object.
    """
    source = f"--bootstrap {file}" if file else BOOTSTRAP_VARIABLE
    try:
        text = _text(file) if file else environ.get(BOOTSTRAP_VARIABLE, "")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise ConfigurationError([f"{source}: {reason or error}"]) from error
    if not text.strip():
        raise ConfigurationError([f"{source}: Envoy's bootstrap is missing; {_HOW}"])
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigurationError([f"{source}: no JSON object ({error}); {_HOW}"]) from error


def _text(file: str) -> str:
    return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")


def _owner(text: str) -> tuple[int, int] | None:
    """Return user and group as numbers.

    Raises:
        ConfigurationError: the text is not of the form ``uid:gid``, or this process may not give files away.
    """
    if not text:
        return None
    if re.fullmatch(r"\d{1,9}:\d{1,9}", text) is None:
        raise ConfigurationError([f"--owner {text}: not of the form uid:gid in numbers, like 10001:101"])
    if os.geteuid() != 0:
        raise ConfigurationError([f"--owner {text}: only root gives files away; this is user {os.geteuid()}"])
    user, _, group = text.partition(":")
    return int(user), int(group)


def _prepare(
    directory: Path,
    token_file: str,
    bootstrap: Mapping[str, Any],
    identity: Identity,
    owner: tuple[int, int] | None,
) -> None:
    """Write what Envoy reads at its start, and give the directory to its owner.

    Args:
        directory: where Envoy looks.
        token_file: the name of the token's file there.
        bootstrap: what the service's Envoys share.
        identity: of this task or machine.
        owner: user and group to give the directory to; None leaves it as it is.

    Raises:
        OSError: a file or the directory cannot be changed.
    """
    prepare_token_files(directory / token_file, PUBLIC)
    document = merged(bootstrap, overlay(identity))
    replace_file(directory / BOOTSTRAP_FILE, msgspec.json.encode(document) + b"\n", PUBLIC)
    if owner is None:
        return
    for path in (*directory.iterdir(), directory):
        os.chown(path, *owner)
    # The steps that follow talk to the network, and need no right of root.
    os.setgroups([])
    os.setgid(owner[1])
    # As a member of its group: from others the kernel takes the setgid bit silently, where they lack CAP_FSETID.
    directory.chmod(_DIRECTORY_MODE)
    os.setuid(owner[0])


def _log_in(settings: Settings) -> None:
    """Write the first token, if one is to be had: Envoy starts without it too."""
    if not settings.envoy_token_file:
        return
    missing = asyncio.run(write_envoy_token(settings))
    if missing:
        sys.stderr.write(
            f"registrar: no token within {LOGIN_TIMEOUT:g}s: {missing}; Envoy starts without one, gets nothing from a "
            "closed registry, and takes the token that `registrar run` writes later\n"
        )
