"""AWS ECS for tests: moto on loopback, with one cluster whose tasks can be started and stopped."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any, Self

import boto3
from moto.server import ThreadedMotoServer

from harness.link import sample


class Ecs:
    """A moto server with a cluster of one container instance.

    Attributes:
        url: where it serves.
        region: the region of the cluster.
        cluster_arn: the cluster.
    """

    def __init__(self, url: str, region: str) -> None:
        self.url = url
        self.region = region
        self._ecs = self._client("ecs")
        ec2 = self._client("ec2")
        image = ec2.describe_images()["Images"][0]["ImageId"]
        instance = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"][0]
        self.cluster_arn = str(self._ecs.create_cluster(clusterName="prod")["cluster"]["clusterArn"])
        document = sample("imds-instance-identity-document") | {"instanceId": instance["InstanceId"]}
        self._ecs.register_container_instance(cluster="prod", instanceIdentityDocument=json.dumps(document))
        container = {"name": "app", "image": "app", "memory": 1}
        self._ecs.register_task_definition(family="shop", containerDefinitions=[container])

    @classmethod
    @contextlib.contextmanager
    def running(cls, address: str = "127.0.0.1", region: str = "eu-west-1") -> Iterator[Self]:
        """Serve at an address of this machine within a block."""
        server = ThreadedMotoServer(address, 0)
        server.start()
        host, port = server.get_host_and_port()
        try:
            yield cls(f"http://{host}:{port}", region)
        finally:
            server.stop()

    @property
    def variables(self) -> dict[str, str]:
        """The environment with which an SDK asks this server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def run_task(self) -> str:
        """Start a task and return its id."""
        answer = self._ecs.run_task(cluster="prod", taskDefinition="shop", launchType="EC2")
        return str(answer["tasks"][0]["taskArn"]).rpartition("/")[2]

    def stop_task(self, task_id: str, reason: str) -> None:
        """Stop a task."""
        self._ecs.stop_task(cluster="prod", task=task_id, reason=reason)

    def create_service(self, name: str, desired: int) -> None:
        """Create an ECS service that wants so many tasks."""
        self._ecs.create_service(cluster="prod", serviceName=name, taskDefinition="shop", desiredCount=desired)

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name=self.region,
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
