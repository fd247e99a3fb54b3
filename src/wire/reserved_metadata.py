"""The keys of an endpoint's metadata that the registry reads itself; they are not sent to Envoy.

They are metadata and no fields of a registration, because a registry of an earlier version refuses fields that it does
not have, and takes every key.
"""

from collections.abc import Mapping
from typing import Any

ECS_CLUSTER = "ecs_cluster"
"""The ECS cluster of the instance's task: its ARN, or its name. Sent by registrars in ECS tasks."""
ECS_TASK = "ecs_task"
"""The id of the instance's ECS task, where the instance id is another one."""
ECS_SERVICE = "ecs_service"
"""The name of the ECS service that the instance's task is of. Sent by registrars in ECS tasks that know it."""

PROBER = "prober"
"""Whether the instance's registrar probes endpoints of its service when the registry asks it to: ``on``, or unset."""

RESERVED_KEYS = frozenset({ECS_CLUSTER, ECS_TASK, ECS_SERVICE, PROBER})
"""All of them."""


def without_reserved_keys(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that is sent to Envoy: all but the reserved keys, whose values are texts."""
    return {key: value for key, value in metadata.items() if key not in RESERVED_KEYS or not isinstance(value, str)}
