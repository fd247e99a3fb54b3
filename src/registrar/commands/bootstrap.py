"""``registrar bootstrap``: write what Envoy's bootstrap lacks of this task or machine, before that Envoy starts."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from registrar.commands.flags import add_flags, settings_of
from registrar.endpoint.endpoints import identity_sources
from registrar.errors import ConfigurationError, MetadataUnavailable
from registrar.event_log import configure_logs
from registrar.identity.resolver import Identity, resolve_identity
from wire.atomic_file import PUBLIC, replace_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the file, and one for each setting."""
    parser.add_argument(
        "--out", metavar="<file>", default="", help="Write the overlay into this file instead of standard output."
    )
    add_flags(parser)


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Return 0 when the overlay is written, otherwise 1.

    Raises:
        ConfigurationError: the settings are invalid, the file cannot be written, or no source names the instance.
    """
    settings = settings_of(arguments)
    configure_logs("error")
    try:
        identity = asyncio.run(resolve_identity(identity_sources(settings, os.environ)))
    except MetadataUnavailable as error:
        sys.stderr.write(f"registrar: no overlay: {error}\n")
        return 1
    # JSON in one line: it is an argument, and --config-yaml reads JSON too.
    text = msgspec.json.encode(overlay(identity)).decode() + "\n"
    if not arguments.out:
        sys.stdout.write(text)
        return 0
    try:
        # Envoy often has another user, and nothing in it is secret.
        replace_file(Path(arguments.out), text.encode(), PUBLIC)
    except OSError as error:
        raise ConfigurationError([f"--out {arguments.out}: {error.strerror or error}"]) from error
    return 0


def overlay(identity: Identity) -> dict[str, Any]:
    """Return the part of Envoy's bootstrap that differs between tasks; Envoy appends the tag to those that it has."""
    locality = {key: value for key, value in (("region", identity.region), ("zone", identity.zone)) if value}
    node: dict[str, Any] = {"id": identity.instance_id}
    if locality:
        node["locality"] = locality
    tag = {"tag_name": "service-node", "fixed_value": identity.instance_id}
    return {"node": node, "stats_config": {"stats_tags": [tag]}}
