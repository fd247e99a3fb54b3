"""The AWS API as the last source of a bridge-mode task, against a real moto server."""

import json
from collections.abc import Iterator

import boto3
import pytest
from harness.link import FakeTask, sample
from moto.server import ThreadedMotoServer

from registrar.errors import AddressError, MetadataUnavailable
from registrar.identity import aws_api
from registrar.identity.aws_api import AwsApi
from registrar.identity.ecs_task import EcsTask
from registrar.identity.metadata import Metadata, Task
from registrar.identity.resolver import resolve_location
from registrar.identity.spec import EndpointSpec

REGION = "ap-northeast-1"
APP = EndpointSpec.parse(":8080")


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """A moto server on a port of its own."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a task whose SDKs talk to moto."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return moto


def start_task() -> tuple[str, str]:
    """Run a task in a cluster with one container instance; return its ARN and its host's address."""
    ecs, ec2 = boto3.client("ecs", region_name=REGION), boto3.client("ec2", region_name=REGION)
    image = ec2.describe_images()["Images"][0]["ImageId"]
    instance = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"][0]
    ecs.create_cluster(clusterName="default")
    document = sample("imds-instance-identity-document") | {"instanceId": instance["InstanceId"]}
    ecs.register_container_instance(cluster="default", instanceIdentityDocument=json.dumps(document))
    container = {"name": "app", "image": "app", "memory": 64, "portMappings": [{"containerPort": 8080}]}
    ecs.register_task_definition(family="shop", containerDefinitions=[container])
    task = ecs.run_task(cluster="default", taskDefinition="shop", launchType="EC2")["tasks"][0]
    return task["taskArn"], instance["PrivateIpAddress"]


async def test_a_bridge_task_finds_its_host_by_the_api(aws: str) -> None:
    """Task, container instance, instance: the host's address with the port that the metadata tells."""
    arn, address = start_task()
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as fake:
        fake.task["TaskARN"] = arn
        api = AwsApi(EcsTask(Metadata.of(fake.variables)), spread=0.01)
        location = await resolve_location(APP, [api])
        assert (location.address, location.port) == (address, 32769)


async def test_the_api_is_asked_once_in_a_tasks_life(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task never moves: the second endpoint has the same host without a question."""
    asked: list[str] = []

    def answer(task: Task) -> str:
        asked.append(task.id)
        return "10.0.8.17"

    monkeypatch.setattr(aws_api, "_host_address", answer)
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as fake:
        api = AwsApi(EcsTask(Metadata.of(fake.variables)), spread=0.01)
        ports = [(await resolve_location(EndpointSpec.parse(spec), [api])).port for spec in (":8080", ":9090")]
    assert ports == [32769, 32770]
    assert asked == ["c13b4cb40f1f4fe4a2971f76ae5a47ad"]


async def test_an_api_that_refuses_says_what_to_allow(aws: str) -> None:
    """A role without the permissions, or a task that is not there, ends with the policy that is missing."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as fake:
        fake.task["TaskARN"] = f"arn:aws:ecs:{REGION}:111122223333:task/nowhere/abc"
        api = AwsApi(EcsTask(Metadata.of(fake.variables)), spread=0.01)
        with pytest.raises(AddressError, match=r"aws-api: .*Cluster not found.*; allow ecs:DescribeTasks"):
            await resolve_location(APP, [api])


async def test_without_boto3_the_fix_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base install has no boto3."""
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as fake:
        answer = await AwsApi(EcsTask(Metadata.of(fake.variables)), spread=0.01).locate(APP, "app")
    assert (answer.said, answer.fix) == ("boto3 is not installed", "install headcount[aws]")


async def test_an_instance_that_is_not_ec2_is_an_answer_that_lacks_something(
    aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ECS Anywhere has container instances without an EC2 instance."""

    def nowhere(*_: object) -> str:
        raise KeyError("ec2InstanceId")

    monkeypatch.setattr(aws_api, "_ec2_instance", nowhere)
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as fake:
        task = await EcsTask(Metadata.of(fake.variables)).task()
    with pytest.raises(MetadataUnavailable, match="lacks 'ec2InstanceId'"):
        aws_api._host_address(task)


async def test_a_task_with_an_interface_of_its_own_never_asks() -> None:
    """In awsvpc mode the host's address would be wrong."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as fake:
        answer = await AwsApi(EcsTask(Metadata.of(fake.variables))).locate(APP, "")
    assert answer.asked == ""
    assert "awsvpc" in answer.said


@pytest.mark.parametrize(
    ("described", "address"),
    [
        ({"PrivateIpAddress": "10.0.8.17", "Ipv6Address": "2600:1f18::17"}, "10.0.8.17"),
        # A host in a subnet with IPv6 only: EC2 leaves the other out, or empty.
        ({"Ipv6Address": "2600:1f18::17"}, "2600:1f18::17"),
        ({"PrivateIpAddress": "", "Ipv6Address": "2600:1f18::17"}, "2600:1f18::17"),
    ],
)
def test_a_host_with_ipv6_only_is_found(described: dict[str, str], address: str) -> None:
    """IPv4 where there is one, as before."""
    assert aws_api._address_of(described) == address
