"""The check that a request reached the registrar that it names: several may share a network namespace."""

import os
from collections.abc import Mapping

from registrar.admin.status import RegistrarStatus
from registrar.identity.spec import EndpointSpec


def describe(status: RegistrarStatus) -> str:
    """Return the name of a registrar, for people."""
    owned = " and ".join(f"{endpoint.service} {endpoint.endpoint}" for endpoint in status.endpoints)
    return f"the registrar of {owned}, instance {status.instance_id}"


def mismatch(expected: Mapping[str, str], status: RegistrarStatus, config: str) -> str:
    """Return an error if the request names another registrar than this one; empty otherwise.

    Args:
        expected: the service, endpoint, instance_id and config that the request names; each may be missing.
        status: the status of this registrar.
        config: the path of its file or directory of settings.
    """
    own = {
        "service": {endpoint.service for endpoint in status.endpoints},
        "endpoint": {endpoint.setting for endpoint in status.endpoints},
        "instance_id": {status.instance_id},
        "config": {os.path.realpath(config)} if config else {"none"},
    }
    for key, values in own.items():
        value = _normalized(key, expected.get(key, ""))
        if value and value not in values:
            return (
                f"this is {describe(status)}; the request names {key} {value}, and its own is "
                f"{', '.join(sorted(values))}: set REGISTRAR_ADMIN_LISTEN to an address of its own for each registrar, "
                "and to the same address for the commands that ask it"
            )
    return ""


def _normalized(key: str, value: str) -> str:
    try:
        return str(EndpointSpec.parse(value)) if key == "endpoint" and value else value
    except ValueError:
        return value
