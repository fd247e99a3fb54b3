"""The metadata that the registrar adds for the registry: its ECS cluster, task and service, and whether it probes."""

from typing import Any

from registrar.identity.resolver import Identity
from wire.model import check_metadata
from wire.reserved_metadata import ECS_CLUSTER, ECS_SERVICE, ECS_TASK, PROBER


def with_reserved_keys(metadata: dict[str, Any], identity: Identity) -> dict[str, Any]:
    """Return the metadata of a service with the keys that the registry reads itself.

    A key of the settings wins. Metadata that is at its limit already stays as it is: an endpoint that is refused for an
    added key would be worse than one without it.
    """
    added = {}
    if identity.cluster_arn:
        added[ECS_CLUSTER] = identity.cluster_arn
        if identity.task != identity.instance_id:
            added[ECS_TASK] = identity.task
        if identity.service:
            added[ECS_SERVICE] = identity.service
    if identity.prober:
        added[PROBER] = "on"
    if not added:
        return metadata
    merged = added | metadata
    try:
        check_metadata(merged)
    except ValueError:
        return metadata
    return merged
