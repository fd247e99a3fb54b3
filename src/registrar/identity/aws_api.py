"""The AWS API as a source: the address of a task's host, where no other source knows it."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from registrar.errors import MetadataUnavailable
from registrar.identity.ecs_task import AWSVPC, NO_TASK, EcsTask
from registrar.identity.metadata import Task
from registrar.identity.source import Answer, Facts
from registrar.identity.spec import EndpointSpec
from registrar.jitter import phase
from registrar.thread_call import call_in_thread

_ASKED = "DescribeTasks, DescribeContainerInstances, DescribeInstances"
_ALLOW = "allow ecs:DescribeTasks, ecs:DescribeContainerInstances and ec2:DescribeInstances in the task's role"
_SPREAD = 2.0
"""Seconds over which tasks spread their first request: the API's limit is per account and region."""


class AwsApi:
    """Source that asks the AWS API once in a process's life: a task never moves to another host.

    Args:
        task: the task, for its ARN, network mode and ports.
        spread: the first request is sent after a random time of up to so many seconds.
    """

    name = "aws-api"
    costly = True

    def __init__(self, task: EcsTask, spread: float = _SPREAD) -> None:
        self._task = task
        self._spread = spread
        self._address = ""

    async def locate(self, spec: EndpointSpec, container: str) -> Answer:
        """Return the container instance's address, with the port that the app has there."""
        if not self._task.there:
            return Answer("", NO_TASK)
        if await self._task.host_port(spec, container) is None:
            return Answer("", AWSVPC)
        try:
            self._address = self._address or await self._ask()
        except MetadataUnavailable as error:
            return Answer(_ASKED, str(error), fix=error.fix)
        location = await self._task.on_host(self._address, spec, container)
        return Answer(_ASKED, "the container instance's address", location)

    async def facts(self) -> Facts:
        """Return no facts: the task's metadata has them all."""
        return Facts()

    async def _ask(self) -> str:
        task = await self._task.task()
        await asyncio.sleep(phase(self._spread))
        return await call_in_thread(partial(_host_address, task))


def _host_address(task: Task) -> str:
    """Return the address of the EC2 instance of the task's container instance; blocks.

    Raises:
        MetadataUnavailable: the API refuses, or its answer lacks a field.
    """
    try:
        # Imported where it is used: boto3 takes more memory than the registrar, and few tasks need it.
        import boto3  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    except ImportError as error:
        raise MetadataUnavailable("boto3 is not installed", "install headcount[aws]") from error
    config = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    session = boto3.session.Session(region_name=task.region)
    try:
        instance = _ec2_instance(session.client("ecs", config=config), task)
        answer = session.client("ec2", config=config).describe_instances(InstanceIds=[instance])
        return _address_of(answer["Reservations"][0]["Instances"][0])
    except (BotoCoreError, ClientError) as error:
        raise MetadataUnavailable(" ".join(str(error).split()), _ALLOW) from error
    except (KeyError, IndexError) as error:
        raise MetadataUnavailable(f"the answer lacks {error}", _ALLOW) from error


def _address_of(instance: Mapping[str, Any]) -> str:
    """Return the private IPv4 address of an instance, or the IPv6 address of one that has no other."""
    return str(instance.get("PrivateIpAddress") or instance["Ipv6Address"])


def _ec2_instance(ecs: Any, task: Task) -> str:  # noqa: ANN401 - boto3 makes its clients' types at run time
    answer = ecs.describe_tasks(cluster=task.cluster, tasks=[task.task_arn])
    if not answer["tasks"]:
        raise MetadataUnavailable(f"no task {task.task_arn} in the cluster {task.cluster}", _ALLOW)
    container_instance = answer["tasks"][0]["containerInstanceArn"]
    instances = ecs.describe_container_instances(cluster=task.cluster, containerInstances=[container_instance])
    return str(instances["containerInstances"][0]["ec2InstanceId"])
