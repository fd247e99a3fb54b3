"""The cluster and the task that a registrar adds to the metadata of its endpoints."""

from typing import Any

import pytest
from msgspec.structs import replace

from registrar.endpoint.reserved_metadata import with_reserved_keys
from registrar.identity.metadata import Task
from registrar.identity.resolver import Identity
from wire.model import check_metadata
from wire.reserved_metadata import without_reserved_keys

ARN = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod"
IN_TASK = Identity("158d1c80", 1, cluster="prod", cluster_arn=ARN, task="158d1c80")


@pytest.mark.parametrize(
    ("identity", "added"),
    [
        (Identity("i-1", 1), {}),
        (IN_TASK, {"ecs_cluster": ARN}),
        (Identity("mine", 1, cluster_arn=ARN, task="158d1c80"), {"ecs_cluster": ARN, "ecs_task": "158d1c80"}),
        (replace(IN_TASK, service="shop-prod"), {"ecs_cluster": ARN, "ecs_service": "shop-prod"}),
        (Identity("i-1", 1, service="shop-prod"), {}),
    ],
)
def test_the_task_is_named_where_the_instance_is_another(identity: Identity, added: dict[str, str]) -> None:
    """Outside of ECS nothing is added; the instance id is not repeated."""
    assert with_reserved_keys({"stage": "blue"}, identity) == {"stage": "blue"} | added


def test_a_key_of_the_settings_wins() -> None:
    """What an operator wrote is never replaced."""
    assert with_reserved_keys({"ecs_cluster": "own"}, IN_TASK) == {"ecs_cluster": "own"}


def test_metadata_at_its_limit_stays_as_it_is() -> None:
    """One key more would be refused, and the endpoint with it."""
    full: dict[str, Any] = {f"key-{number}": number for number in range(64)}
    assert with_reserved_keys(full, IN_TASK) == full
    del full["key-0"]
    check_metadata(with_reserved_keys(full, IN_TASK))
    assert "ecs_cluster" in with_reserved_keys(full, IN_TASK)


@pytest.mark.parametrize(
    ("task", "arn"),
    [
        (Task(task_arn="arn:aws:ecs:eu-west-1:111122223333:task/prod/158d"), ARN),
        (Task(task_arn="arn:aws:ecs:eu-west-1:111122223333:task/158d", cluster_field="prod"), ARN),
        (Task(task_arn="arn:aws:ecs:eu-west-1:111122223333:task/158d"), ""),
        (Task(task_arn="158d", cluster_field="prod"), ""),
        (Task(), ""),
    ],
)
def test_the_clusters_arn_follows_from_the_tasks(task: Task, arn: str) -> None:
    """It has the region and the account, which a name lacks."""
    assert task.cluster_arn == arn


def test_envoy_gets_no_reserved_key() -> None:
    """A text under such a key is left out; any other value counts as the service's own."""
    metadata = {"stage": "blue", "ecs_cluster": ARN, "ecs_task": ["not", "ours"]}
    assert without_reserved_keys(metadata) == {"stage": "blue", "ecs_task": ["not", "ours"]}
