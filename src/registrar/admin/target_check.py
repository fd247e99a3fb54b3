"""Whom a local request is meant for: registrars that share a network namespace can take each other's requests."""

import os
from collections.abc import Mapping

from registrar.admin.status import RegistrarStatus
from registrar.identity.spec import EndpointSpec


def describe(status: RegistrarStatus) -> str:
    """Name a registrar, for people."""
    owned = " and ".join(f"{one.service} {one.endpoint}" for one in status.endpoints)
    return f"the registrar of {owned}, instance {status.instance_id}"


def mismatch(meant: Mapping[str, str], status: RegistrarStatus, config: str) -> str:
    """Return what is wrong when a request is meant for another registrar than this one; empty when it is for it.

    Args:
        meant: what the one has who asks, as far as that is known: service, endpoint, instance_id, config.
        status: of this registrar.
        config: its file or directory.
    """
    own = {
        "service": {one.service for one in status.endpoints},
        "endpoint": {one.setting for one in status.endpoints},
        "instance_id": {status.instance_id},
        "config": {os.path.realpath(config)} if config else {"none"},
    }
    for key, known in own.items():
        told = _normal(key, meant.get(key, ""))
        if told and told not in known:
            return (
                f"this is {describe(status)}, and not the one with {key} {told} that was meant (its own is "
                f"{', '.join(sorted(known))}): set REGISTRAR_ADMIN_LISTEN to a place of its own for each registrar, "
                "and to the same for what asks it"
            )
    return ""


def _normal(key: str, told: str) -> str:
    try:
        return str(EndpointSpec.parse(told)) if key == "endpoint" and told else told
    except ValueError:
        return told
