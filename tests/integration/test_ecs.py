"""`registrar run` in an ECS task, for each network mode: the right address and port reach a real registry."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from harness.link import FakeImds, FakeTask, sample
from harness.process import eventually, running, script
from harness.registry import Registry


@contextlib.contextmanager
def _registrar(
    directory: Path, found: Registry, environ: dict[str, str], **more: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a registrar as a task definition would: nothing tells it an address, and here not even a service."""
    config = directory / "registrar.yaml"
    config.write_text("services: [{endpoint: ':8080', checks: [{type: noop, interval: 100ms}]}]")
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("REGISTRAR_", "ECS_", "AWS_"))
    }
    told = {
        "REGISTRAR_REGISTRY_URL": found.url,
        "REGISTRAR_CONFIG": str(config),
        "REGISTRAR_ON_SIGTERM": "keep",
        "REGISTRAR_ADMIN_LISTEN": "off",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with running(
        [*script("registrar"), "run"], env=inherited | told | environ | more, log=directory / "registrar.log"
    ) as process:
        yield process


def _registered(found: Registry, service: str, endpoint: str) -> bool:
    return found.statuses(service) == {endpoint: "HEALTHY"}


@pytest.mark.parametrize(
    ("name", "endpoint"),
    [
        ("tmds-v4-fargate-awsvpc-task", "10.0.2.61:8080"),
        ("tmds-v4-ec2-awsvpc-task", "10.0.2.100:8080"),
        ("tmds-v4-ec2-awsvpc-app-restarted-in-place-task", "10.0.2.100:8080"),
        ("tmds-v4-managed-instances-task", "10.0.2.100:8080"),
        ("tmds-v4-ec2-bridge-dynamic-task", "10.0.8.17:32769"),
        ("tmds-v4-ec2-host-task", "10.0.8.17:8080"),
    ],
)
def test_each_network_mode_registers_where_it_is_reached(
    shared_registry: Registry, tmp_path: Path, service: str, name: str, endpoint: str
) -> None:
    """Address, port, and even the service's name come from the task; identity and place as well."""
    file = tmp_path / "ecs.json"
    file.write_text(json.dumps(sample("ecs-container-metadata-file-bridge-ready")))
    with FakeTask(name) as task:
        task.task["ServiceName"] = service
        task.failures.append((500, '"failed"'))
        with _registrar(tmp_path, shared_registry, task.variables, ECS_CONTAINER_METADATA_FILE=str(file)):
            eventually(
                partial(_registered, shared_registry, service, endpoint),
                within=15,
                said=(tmp_path / "registrar.log").read_text,
            )
            stored = shared_registry.client.get(f"/v1/services/{service}/endpoints/{endpoint}").json()
            polled = shared_registry.poll(service).text
    assert stored["instance_id"] == task.task["TaskARN"].rpartition("/")[2]
    assert (stored["region"], stored["zone"], stored["revision"]) == ("ap-northeast-1", "ap-northeast-1c", "shop:42")
    # For the registry alone: no Envoy gets it.
    cluster = task.task["TaskARN"].rpartition("/")[0].replace(":task/", ":cluster/")
    assert stored["metadata"] == {"ecs_cluster": cluster, "ecs_service": service}
    assert "ecs_" not in polled


def test_a_bridge_task_without_the_file_asks_imds(shared_registry: Registry, tmp_path: Path, service: str) -> None:
    """The host's address comes from IMDSv2, the port from the task."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task, FakeImds() as imds:
        task.task["ServiceName"] = service
        environ = task.variables | imds.variables | {"AWS_EC2_METADATA_DISABLED": "false"}
        with _registrar(tmp_path, shared_registry, environ, REGISTRAR_CONTAINER="app"):
            eventually(
                partial(_registered, shared_registry, service, "10.0.8.17:32769"),
                within=15,
                said=(tmp_path / "registrar.log").read_text,
            )


def test_an_ec2_instance_registers_itself(shared_registry: Registry, tmp_path: Path, service: str) -> None:
    """Outside of ECS IMDSv2 tells id, place and address."""
    with FakeImds() as imds:
        environ = imds.variables | {"AWS_EC2_METADATA_DISABLED": "false", "REGISTRAR_SERVICE": service}
        with _registrar(tmp_path, shared_registry, environ):
            endpoint = "10.0.8.17:8080"
            eventually(
                partial(_registered, shared_registry, service, endpoint),
                within=15,
                said=(tmp_path / "registrar.log").read_text,
            )
            stored = shared_registry.client.get(f"/v1/services/{service}/endpoints/{endpoint}").json()
    assert (stored["instance_id"], stored["zone"]) == ("i-1234567890abcdef0", "ap-northeast-1c")


def test_a_task_that_cannot_be_reached_says_how_to_mend_it(shared_registry: Registry, tmp_path: Path) -> None:
    """A bridge task of which nobody knows the host ends with status 2 and the fix."""
    with (
        FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task,
        FakeImds() as imds,
    ):
        imds.silent.add("/latest/api/token")
        environ = task.variables | imds.variables | {"AWS_EC2_METADATA_DISABLED": "false"}
        # Without credentials or an endpoint that answers, the API ends at once.
        environ |= {"AWS_ENDPOINT_URL": imds.url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
        with _registrar(tmp_path, shared_registry, environ) as process:
            assert process.wait(30) == 2
    said = (tmp_path / "registrar.log").read_text()
    assert "HttpPutResponseHopLimit=2" in said
    assert "ECS_ENABLE_CONTAINER_METADATA=true" in said
    assert "REGISTRAR_ENDPOINT=10.0.0.5:8080" in said


def test_a_task_of_no_service_needs_a_name(shared_registry: Registry, tmp_path: Path) -> None:
    """An agent that does not tell ServiceName leaves it to the settings."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as task:
        del task.task["ServiceName"]
        with _registrar(tmp_path, shared_registry, task.variables) as process:
            assert process.wait(15) == 2
    assert "REGISTRAR_SERVICE: not set" in (tmp_path / "registrar.log").read_text()


def test_a_restart_in_place_that_moves_the_port_is_followed(
    shared_registry: Registry, tmp_path: Path, service: str
) -> None:
    """Docker gives the app another port of the host: the new one is registered, and the old one leaves."""
    file = tmp_path / "ecs.json"
    file.write_text(json.dumps(sample("ecs-container-metadata-file-bridge-ready")))
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task:
        task.task["ServiceName"] = service
        more = {"ECS_CONTAINER_METADATA_FILE": str(file), "REGISTRAR_DRAIN_WAIT": "500ms"}
        with _registrar(tmp_path, shared_registry, task.variables, **more):
            log = (tmp_path / "registrar.log").read_text
            eventually(partial(_registered, shared_registry, service, "10.0.8.17:32769"), within=15, said=log)
            task.container("app")["Ports"] = [{"ContainerPort": 8080, "HostPort": 32801, "HostIp": "0.0.0.0"}]
            eventually(partial(_registered, shared_registry, service, "10.0.8.17:32801"), within=30, said=log)
