"""What deploy/ has for ECS: definitions, policies and Terraform agree with one another and with the code."""

import contextlib
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import boto3
import hcl2
import httpx
import pytest
from botocore.exceptions import ClientError
from harness.app import app
from harness.cloudformation import Template
from harness.envoy import Envoy, binary
from harness.link import FakeTask
from harness.process import eventually, free_port, running
from harness.registry import Registry
from harness.terraform import Terraform
from integration.registrar.processes import SOURCES
from moto import mock_aws
from moto.ec2.models import ec2_backends

from meshconfig.bootstrap import bootstrap
from meshconfig.repository import read
from registrar.commands.envoy_setup import BOOTSTRAP_FILE, BOOTSTRAP_VARIABLE
from registrar.config.configuration import load_settings
from registrar.config.settings import VARIABLES
from registry.settings import Settings
from wire.duration import parse_duration
from wire.envoy_token import TOKEN_DIRECTORY, TOKEN_FILE

ROOT = Path(__file__).parents[2]
ECS = ROOT / "deploy" / "ecs"
MODULES = ROOT / "deploy" / "terraform" / "modules"
SAMPLES = ROOT / "tests" / "samples" / "terraform"
DEFINITIONS = ("task-definition", "registry-task-definition", "operator-task-definition")
TASK_ID = "158d1c8083dd49d6b527399fd6414f5c"
MAX_STOP = 120
"""Seconds that Fargate allows as stopTimeout, and that all containers of a task have together on Spot."""
MAX_DEFINITION = 65_536
"""Bytes of a task definition (the service quotas of ECS)."""

MOTO_ACCOUNT = "123456789012"
"""The account of everything in moto."""

Container = dict[str, Any]


def document(name: str) -> dict[str, Any]:
    """Return a file of deploy/ecs."""
    parsed: dict[str, Any] = json.loads((ECS / f"{name}.json").read_text())
    return parsed


def by_name(containers: list[Container]) -> dict[str, Container]:
    """Return containers by their names."""
    return {container["name"]: container for container in containers}


def environment(container: Container) -> dict[str, str]:
    """Return the environment of a container."""
    return {variable["name"]: variable["value"] for variable in container.get("environment", [])}


@pytest.fixture
def task() -> dict[str, Container]:
    """The containers of the example's task definition, by name."""
    return by_name(document("task-definition")["containerDefinitions"])


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The containers of other kinds of tasks, by the Terraform modules."""
    return Terraform(SAMPLES / "variants", tmp_path_factory.mktemp("variants")).outputs()


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, Any]]:
    """Clients of an AWS in this process, by service."""
    with mock_aws():
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "eu-west-1"}
        yield {service: boto3.client(service, **keys) for service in ("ecs", "iam")}


def test_aws_takes_the_task_definitions_and_the_services(aws: dict[str, Any]) -> None:
    """Every key and type is of botocore's model; moto registers the tasks and creates the services."""
    aws["ecs"].create_cluster(clusterName="prod")
    for name in DEFINITIONS:
        definition = document(name)
        stored = aws["ecs"].register_task_definition(**definition)["taskDefinition"]
        assert stored["family"] == definition["family"]
        assert len((ECS / f"{name}.json").read_bytes()) < MAX_DEFINITION
    network_of_moto = ec2_backends[MOTO_ACCOUNT]["eu-west-1"]
    subnets = [subnet.id for zone in network_of_moto.subnets.values() for subnet in zone.values()]
    group = next(iter(next(iter(network_of_moto.groups.values()))))
    for name in ("service", "registry-service"):
        service = document(name)
        # moto has subnets and groups of its own, and looks whether there are those that are named.
        network = service["networkConfiguration"]["awsvpcConfiguration"]
        network |= {"subnets": subnets[:2], "securityGroups": [group]}
        created = aws["ecs"].create_service(**service)["service"]
        assert created["taskDefinition"].endswith(f"/{document(name)['taskDefinition']}:1")


def test_aws_takes_the_policies(aws: dict[str, Any]) -> None:
    """IAM's own grammar, as moto checks it; and nothing is allowed for every resource that could be named."""
    for path in sorted((ECS / "policies").glob("*.json")):
        text = path.read_text()
        if path.stem == "trust":
            aws["iam"].create_role(RoleName="shop-task-role", AssumeRolePolicyDocument=text)
        else:
            aws["iam"].create_policy(PolicyName=path.stem, PolicyDocument=text)
        for statement in json.loads(text)["Statement"]:
            assert not [action for action in actions_of(statement) if "*" in action], path
            if statement.get("Resource") == "*":
                assert set(actions_of(statement)) <= EVERYWHERE, path


EVERYWHERE = {
    "ecr:GetAuthorizationToken",
    *(f"ssmmessages:{verb}" for verb in ("CreateControlChannel", "CreateDataChannel", "OpenControlChannel")),
    "ssmmessages:OpenDataChannel",
    # A host's address is asked of whatever cluster and instance the task is on.
    *("ecs:DescribeTasks", "ecs:DescribeContainerInstances", "ec2:DescribeInstances"),
}
"""Actions that know no resource, or whose resources nobody knows beforehand."""


def test_a_wrong_policy_would_be_noticed(aws: dict[str, Any]) -> None:
    """The check of the policies can fail."""
    text = (ECS / "policies" / "execute-command.json").read_text().replace("Resource", "Resources")
    with pytest.raises(ClientError, match="MalformedPolicyDocument"):
        aws["iam"].create_policy(PolicyName="wrong", PolicyDocument=text)


def test_roles_that_the_tasks_name_are_those_of_the_policies() -> None:
    """Each role of a task definition has its rights in a file, or needs none."""
    named = {
        document(name)[key].rpartition("/")[2] for name in DEFINITIONS for key in ("taskRoleArn", "executionRoleArn")
    }
    assert named == ROLES.keys()
    files = {path.stem for path in (ECS / "policies").glob("*.json")}
    assert files == {file for file in ROLES.values() if file} | OTHER_POLICIES


ROLES = {
    "shop-task-role": "",  # a login needs no right
    "shop-execution-role": "shop-execution-role",
    "headcount-task-role": "registry-task-role",
    "headcount-execution-role": "registry-execution-role",
    "headcount-operator-role": "execute-command",
}
"""The file of each role's rights."""
OTHER_POLICIES = {"trust", "task-role-bridge-or-host", "mesh-publisher"}


def containers_of(name: str) -> list[Container]:
    """Return the containers of a task definition of deploy/ecs."""
    containers: list[Container] = document(name)["containerDefinitions"]
    return containers


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_task_can_start_and_stop(name: str) -> None:
    """By ECS's rules of dependsOn and of times, in the example files."""
    can_start_and_stop(containers_of(name))


@pytest.mark.parametrize("name", ["bridge", "host", "open", "verified"])
def test_what_terraform_makes_can_start_and_stop(name: str, variants: dict[str, Any]) -> None:
    """By the same rules, for tasks of other kinds."""
    can_start_and_stop(variants[name])


def can_start_and_stop(containers: list[Container]) -> None:
    """Hold containers to the rules of ECS, and to ours: no shell in a health check, nothing root that stays."""
    named = by_name(containers)
    assert len(named) == len(containers) <= 10
    waits = {name: container.get("dependsOn", []) for name, container in named.items()}
    list(TopologicalSorter({name: [wait["containerName"] for wait in waits[name]] for name in named}).static_order())
    for name, container in named.items():
        for wait in waits[name]:
            awaited = named[wait["containerName"]]
            assert wait["condition"] != "HEALTHY" or "healthCheck" in awaited
            assert wait["condition"] not in {"SUCCESS", "COMPLETE"} or awaited["essential"] is False
        assert container.get("healthCheck", {"command": ["CMD"]})["command"][0] == "CMD"
        assert 2 <= container["stopTimeout"] <= MAX_STOP
        if container.get("user") == "0":
            assert container["essential"] is False, f"{name} stays, and runs as root"
    assert sum(container["stopTimeout"] for container in containers) <= MAX_STOP + 60


def test_the_example_stops_within_the_time_of_spot(task: dict[str, Container]) -> None:
    """All containers of a task have two minutes together when AWS takes the machine back."""
    assert sum(container["stopTimeout"] for container in task.values()) <= MAX_STOP


def test_the_example_configures_a_registrar(task: dict[str, Container]) -> None:
    """Its variables are settings, and with the agent's own they are all that is needed."""
    environ = environment(task["registrar"])
    assert environ.keys() <= VARIABLES.keys()
    agent = {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x"}
    settings = load_settings({}, environ | agent)
    assert settings.on_sigterm == "drain"
    assert settings.services[0].container in task
    before = environment(task["envoy-setup"])
    del before[BOOTSTRAP_VARIABLE]
    login = load_settings({}, before | agent)
    assert before.items() <= environ.items()
    assert (login.login, login.envoy_token_file) == ("aws", f"{TOKEN_DIRECTORY}/{TOKEN_FILE}")


def test_the_app_outlives_the_drain(task: dict[str, Container]) -> None:
    """ECS stops in the reverse order of dependsOn: the registrar before the app, the app before Envoy."""
    waits = {
        name: {(wait["containerName"], wait["condition"]) for wait in container.get("dependsOn", [])}
        for name, container in task.items()
    }
    assert waits == {
        "envoy-setup": set(),
        "envoy": {("envoy-setup", "SUCCESS")},
        "envoy-ready": {("envoy", "START")},
        "app": {("envoy", "START"), ("envoy-ready", "SUCCESS")},
        "registrar": {("app", "START")},
    }
    stop = task["registrar"]["stopTimeout"]
    assert parse_duration(environment(task["registrar"])["REGISTRAR_STOP_TIMEOUT"]) == stop
    # 12 s is what the registry grants by default; three are the registrar's reserve.
    assert stop > 12 + 3


def test_every_container_of_the_app_outlives_the_drain(variants: dict[str, Any]) -> None:
    """The registrar is stopped before whatever it depends on: all of the application that serves."""
    registrar = by_name(variants["bridge"])["registrar"]
    assert [wait["containerName"] for wait in registrar["dependsOn"]] == ["app", "proxy"]


def test_the_task_is_healthy_by_the_registrars_own_word(task: dict[str, Container]) -> None:
    """The latched health check, with a start period that covers its 120 s, and Envoy's state in it."""
    check = task["registrar"]["healthCheck"]
    assert check["command"] == ["CMD", "registrar", "healthcheck", "--envoy", "127.0.0.1:9901"]
    assert check["startPeriod"] >= 120
    # Its own timeouts are 1.5 s and 1 s, and Python has to start.
    assert check["timeout"] > 2.5


def test_envoys_image_needs_no_program_but_envoy(task: dict[str, Container]) -> None:
    """The image `distroless` has no shell; what would need one is done by the registrar's."""
    envoy = task["envoy"]
    assert ":distroless-v" in envoy["image"]
    assert "healthCheck" not in envoy
    assert "entryPoint" not in envoy
    assert envoy["command"][:2] == ["-c", f"{TOKEN_DIRECTORY}/{BOOTSTRAP_FILE}"]


def test_the_containers_of_the_task_share_the_token_directory(task: dict[str, Container]) -> None:
    """The registrar writes where Envoy reads; the app sees none of it, and roots cannot be written."""
    mounts = {name: container.get("mountPoints", []) for name, container in task.items()}
    place = {"sourceVolume": "envoy-token", "containerPath": TOKEN_DIRECTORY}
    read_only = place | {"readOnly": True}
    assert mounts == {
        "envoy-setup": [place],
        "envoy": [read_only],
        "envoy-ready": [],
        "app": [],
        "registrar": [place],
    }
    assert all(container["readonlyRootFilesystem"] for name, container in task.items() if name != "app")


def test_the_registrys_task_names_settings() -> None:
    """Each variable is one that the registry reads; the password is a secret, and in no URL."""
    container = by_name(containers_of("registry-task-definition"))["registry"]
    environ = environment(container)
    assert environ.keys() <= {f"REGISTRY_{name.upper()}" for name in Settings.model_fields}
    settings = Settings.model_validate({name.removeprefix("REGISTRY_").lower(): text for name, text in environ.items()})
    assert settings.auth == "on"
    assert [secret["name"] for secret in container["secrets"]] == ["PGPASSWORD"]
    assert "@" in environ["REGISTRY_DATABASE_URL"]
    assert re.search(r"//[^/@]*:[^/@]*@", environ["REGISTRY_DATABASE_URL"]) is None
    # It answers until DNS has forgotten it, and finishes what it began.
    delay, grace = settings.shutdown_delay, settings.shutdown_grace
    assert delay + grace < container["stopTimeout"]


def test_the_registrys_health_check_is_python(shared_registry: Registry) -> None:
    """The command as it stands, against a registry that is ready, and against none."""
    container = by_name(containers_of("registry-task-definition"))["registry"]
    word, *command = container["healthCheck"]["command"]
    assert (word, command[0]) == ("CMD", "python")
    statuses = []
    for port in (shared_registry.port, free_port()):
        asked = [sys.executable, *(part.replace(":8080", f":{port}") for part in command[1:])]
        statuses.append(subprocess.run(asked, check=False, capture_output=True).returncode)
    assert statuses == [0, 1]


def test_terraform_makes_the_example(tmp_path: Path, task: dict[str, Container]) -> None:
    """The module's containers are those of the task definition, key by key."""
    setup = environment(task["envoy-setup"])
    made = Terraform(SAMPLES / "mesh-task", tmp_path).outputs(
        envoy_image=task["envoy"]["image"], bootstrap=setup[BOOTSTRAP_VARIABLE]
    )
    assert [normalized(container) for container in made["container_definitions"]] == [
        normalized(container) for container in task.values()
    ]
    assert made["volumes"] == [volume["name"] for volume in document("task-definition")["volumes"]]


def test_terraform_makes_the_registry(tmp_path: Path) -> None:
    """The same for the tasks of the registry and of its operator."""
    made = Terraform(SAMPLES / "registry", tmp_path).outputs()
    assert made["container_definitions"] == containers_of("registry-task-definition")
    assert made["operator"] == containers_of("operator-task-definition")
    assert made["volumes"] == [volume["name"] for volume in document("registry-task-definition")["volumes"]]


def normalized(container: Container) -> Container:
    """Return a container whose bootstrap is compared as JSON: Terraform sorts its keys."""
    variables = environment(container)
    if BOOTSTRAP_VARIABLE in variables:
        variables[BOOTSTRAP_VARIABLE] = json.loads(variables[BOOTSTRAP_VARIABLE])
    return container | {"environment": variables}


def test_terraform_leaves_the_apps_containers_as_they_are(variants: dict[str, Any]) -> None:
    """What a container says itself wins; only dependsOn grows."""
    named = by_name(variants["bridge"])
    assert named["app"] == {
        "name": "app",
        "image": "shop:1",
        "dependsOn": [{"containerName": "migrate", "condition": "SUCCESS"}],
        "logConfiguration": {"logDriver": "fluentd"},
        "linuxParameters": {"initProcessEnabled": False},
        "stopTimeout": 20,
    }
    assert named["migrate"]["stopTimeout"] == 5
    assert list(named) == ["migrate", "app", "proxy", "registrar"]


def test_terraform_takes_static_tokens(variants: dict[str, Any]) -> None:
    """Each container gets the secrets that it needs, and the execution role is told all of them."""
    named = by_name(variants["host"])
    secrets = {name: [secret["name"] for secret in item.get("secrets", [])] for name, item in named.items()}
    assert secrets == {
        "envoy-setup": ["REGISTRAR_ENVOY_TOKEN"],
        "envoy": [],
        "envoy-ready": [],
        "app": [],
        "registrar": ["REGISTRAR_ENVOY_TOKEN", "REGISTRAR_OWN", "REGISTRAR_TOKEN"],
    }
    values = {secret["valueFrom"] for container in variants["host"] for secret in container.get("secrets", [])}
    assert values == set(variants["host_secrets"])
    assert environment(named["registrar"])["REGISTRAR_ADMIN_LISTEN"] == "127.0.0.1:9912"
    assert "127.0.0.1:9911" in named["envoy-ready"]["command"]


def test_terraform_lets_the_registry_read_its_password(variants: dict[str, Any]) -> None:
    """The right is that of the store which the ARN names, for the secret without the key of its JSON."""
    assert variants["password_rights"] == {
        "secret": {
            "action": "secretsmanager:GetSecretValue",
            "resource": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:shop-AbCdEf",
        },
        "parameter": {
            "action": "ssm:GetParameters",
            "resource": "arn:aws:ssm:eu-west-1:111122223333:parameter/headcount/password",
        },
    }


def test_the_load_balancer_has_the_attributes_of_its_page() -> None:
    """Its idle timeout lies between a poll that is held and the registry's own; the table of the page says it too."""
    page = (ROOT / "docs" / "load-balancer.md").read_text()
    balancer, targets = (resource("registry", "network", kind) for kind in ("aws_lb", "aws_lb_target_group"))
    assert balancer["preserve_host_header"] is True
    assert "| `routing.http.preserve_host_header.enabled` | `true` |" in page
    assert f"| `idle_timeout.timeout_seconds` | {balancer['idle_timeout']}, " in page
    assert f"| `deregistration_delay.timeout_seconds` | {targets['deregistration_delay']} instead" in page


def resource(module: str, file: str, kind: str) -> dict[str, Any]:
    """Return the body of the one resource of this kind in a file of a module."""
    parsed = hcl2.loads((MODULES / module / f"{file}.tf").read_text())
    (labelled,) = [body for entry in parsed["resource"] for name, body in entry.items() if name.strip('"') == kind]
    (body,) = labelled.values()
    return dict(body)


def test_terraform_refuses_what_ecs_or_envoy_would_refuse_later(tmp_path: Path) -> None:
    """Every fault is said at once, with what is allowed, before anything is made."""
    said = Terraform(SAMPLES / "refused", tmp_path).errors()
    for sentence in (
        "The names envoy-setup, envoy, envoy-ready and registrar are those of the containers that are added",
        "token_secret is the whole ARN",
        "database_password_secret is the whole ARN",
        "registrar_stop_timeout is 16 to 120 s",
        "start_period is 120 to 300 s",
        "envoy.bootstrap is no JSON object with a node",
        "auth is off, audit or on",
    ):
        assert sentence in said


ACCOUNT = "111122223333"
IMAGES = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com"
AWS_VALUES = {
    "AWS::Region": "eu-west-1",
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "Subnets": ["subnet-0a1b2c3d4e5f60001", "subnet-0a1b2c3d4e5f60002"],
    "Cluster": "prod",
    "LoginAudience": "headcount-production",
}


def template(name: str, values: dict[str, Any]) -> Template:
    """Return a template of deploy/cloudformation with values for what differs between installations."""
    text = (ROOT / "deploy" / "cloudformation" / f"{name}.yaml").read_text()
    return Template(text, AWS_VALUES | values)


def roles(family: str, *names: str) -> dict[str, str]:
    """Return the ARNs of the roles that a template makes."""
    return {f"{name}Role.Arn": f"arn:aws:iam::{ACCOUNT}:role/{family}-{name.lower()}-role" for name in names}


def test_cloudformation_makes_the_example(task: dict[str, Container]) -> None:
    """Task and service of the template are those of the files, but for the place of the bootstrap."""
    values = {
        "Name": "shop",
        "Image": f"{IMAGES}/shop:1.8.2",
        "RegistrarImage": f"{IMAGES}/headcount-registrar:0.1.0",
        "LogGroup": "/ecs/shop",
        "TaskDefinition": "shop",
        "SecurityGroup": "sg-0a1b2c3d4e5f60010",
    }
    made = template("service", values | roles("shop", "Task", "Execution"))
    definition = made.resource("TaskDefinition")
    setup = by_name(definition["containerDefinitions"])["envoy-setup"]
    place = f"arn:aws:ssm:eu-west-1:{ACCOUNT}:parameter/headcount/bootstrap/shop"
    assert setup.pop("secrets") == [{"name": BOOTSTRAP_VARIABLE, "valueFrom": place}]
    expected = document("task-definition")
    written = by_name(expected["containerDefinitions"])["envoy-setup"]
    written["environment"] = [entry for entry in written["environment"] if entry["name"] != BOOTSTRAP_VARIABLE]
    assert definition == expected
    assert made.resource("Service") == document("service")


def test_cloudformation_makes_the_registry() -> None:
    """The same for the registry and its operator's task."""
    values = {
        "Image": f"{IMAGES}/headcount-registry:0.1.0",
        "DatabasePassword": f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:headcount/database-AbCdEf",
        "Database.Endpoint.Address": "headcount.abcdefghijkl.eu-west-1.rds.amazonaws.com",
        "LogGroup": "/ecs/headcount",
        "TaskDefinition": "headcount",
        "RegistrySecurityGroup.GroupId": "sg-0a1b2c3d4e5f60020",
        "DnsName.Arn": f"arn:aws:servicediscovery:eu-west-1:{ACCOUNT}:service/srv-0a1b2c3d4e5f6000",
    }
    made = template("registry", values | roles("headcount", "Task", "Execution", "Operator"))
    assert made.resource("TaskDefinition") == document("registry-task-definition")
    operator = document("operator-task-definition")
    assert operator.pop("volumes") == []
    assert made.resource("OperatorTaskDefinition") == operator
    assert made.resource("Service") == document("registry-service")


@pytest.mark.parametrize("name", ["service", "registry"])
def test_cloudformation_allows_no_more_than_the_policies(name: str) -> None:
    """Each action of a template's roles is in the policies' files, and none is a pattern."""
    files = [json.loads(path.read_text()) for path in (ECS / "policies").glob("*.json")]
    allowed = {action for file in files for statement in file["Statement"] for action in actions_of(statement)}
    # The bootstrap may be a parameter of SSM.
    allowed.add("ssm:GetParameters")
    made = template(name, {"Name": "shop", "LogGroup.Arn": "arn:log", "DatabasePassword": "arn:secret"})
    statements = made.statements()
    assert {action for statement in statements for action in actions_of(statement)} <= allowed
    for statement in statements:
        assert statement["Resource"] != "*" or set(actions_of(statement)) <= EVERYWHERE


def actions_of(statement: dict[str, Any]) -> list[str]:
    """Return the actions of a statement, of which there may be one without a list."""
    actions = statement["Action"]
    return actions if isinstance(actions, list) else [actions]


def test_a_first_create_of_the_registry_can_be_rolled_back() -> None:
    """What would stand in the way of the next create goes with the rollback: the database, and the secret's name."""
    text = (ROOT / "deploy" / "cloudformation" / "registry.yaml").read_text()
    others = {name: name for name in ("DatabasePassword", "DatabaseSubnets", "DatabaseSecurityGroup.GroupId")}
    protected, open_to_rollback = (
        Template(text, AWS_VALUES | others | first).resource("Database")["deletionProtection"]
        for first in ({}, {"DatabaseDeletionProtection": "false"})
    )
    assert (protected, open_to_rollback) == ("true", "false")
    assert Template(text, {}).deletion_policy("DatabasePassword") == "RetainExceptOnCreate"
    assert "DatabaseDeletionProtection=false" in PAGE.read_text()


def test_every_terraform_file_parses() -> None:
    """By python-hcl2, and each variable and output says what it is."""
    files = sorted((ROOT / "deploy" / "terraform").rglob("*.tf"))
    assert len(files) > 12
    for path in files:
        parsed = hcl2.loads(path.read_text())
        for kind in ("variable", "output"):
            for entry in parsed.get(kind, []):
                for name, body in entry.items():
                    assert "description" in body or "examples" in path.parts, f"{path}: {kind} {name}"


def test_the_modules_pass_on_every_variable_of_their_containers() -> None:
    """A setting of the inner module that the outer one forgets could not be set."""
    for module in ("mesh-task", "registry"):
        inner = declared(MODULES / module / "containers" / "variables.tf")
        (call,) = hcl2.loads((MODULES / module / "main.tf").read_text())["module"]
        (arguments,) = call.values()
        passed = {name for name in arguments if not name.startswith("__")} - {"source"}
        left = {"shutdown_delay", "stop_timeout"} if module == "registry" else set()
        assert passed == inner - left


def declared(path: Path) -> set[str]:
    """Return the names of the variables of a file."""
    return {name.strip('"') for entry in hcl2.loads(path.read_text())["variable"] for name in entry}


PAGE = ROOT / "docs" / "ecs.md"


def blocks(language: str = "") -> list[str]:
    """Return the fenced blocks of the page that have this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_page_shows_the_modules_as_the_example_calls_them() -> None:
    """What a reader copies stands in deploy/terraform/examples, where Terraform reads it."""
    example = (ROOT / "deploy" / "terraform" / "examples" / "shop" / "main.tf").read_text()
    shown = blocks("hcl")
    assert len(shown) == 2
    assert all(block in example for block in shown)


def test_the_definitions_of_the_page_make_its_bootstraps() -> None:
    """They are valid, and an Envoy that starts from them takes its token from where the task writes it."""
    files = {block.split("\n")[0].removeprefix("# mesh/"): block for block in blocks("yaml")}
    configuration, faults = read(files)
    assert faults == []
    assert configuration is not None
    compact = json.dumps(bootstrap(configuration, "shop"), separators=(",", ":"))
    assert f'"path":"{TOKEN_DIRECTORY}/sds.json"' in compact
    # An advanced parameter of SSM has 8 KiB.
    assert len(compact) < 8192


@pytest.mark.parametrize("name", ["service", "registry"])
def test_the_page_gives_the_templates_what_they_want(name: str) -> None:
    """Each parameter that the command names exists, and each that has no default is named."""
    text = (ROOT / "deploy" / "cloudformation" / f"{name}.yaml").read_text()
    parameters = Template(text, {}).parameters()
    (command,) = [part for block in blocks() for part in block.split("aws cloudformation") if f"{name}.yaml" in part]
    given = set(re.findall(r"\b([A-Z]\w+)=", command.partition("--parameter-overrides")[2]))
    assert given <= parameters.keys()
    assert {parameter for parameter, optional in parameters.items() if not optional} <= given


def test_the_page_quotes_what_the_programs_say() -> None:
    """The words by which a reader searches the table are those of the code."""
    said = {
        "src/registrar/commands/envoy_setup.py": ("Envoy's bootstrap is missing", "no JSON object", "no bootstrap: "),
        "src/registrar/commands/envoy_ready.py": ("Envoy's admin interface at ", "PRE_INITIALIZING", "does not answer"),
        "src/registrar/registry_client/log_deduplication.py": ("heartbeats_refused",),
        "src/registrar/credentials/aws_login.py": ("login_refused",),
        "src/registry/store/failures.py": ("PostgreSQL refuses the registry's password",),
    }
    for path, words in said.items():
        source = (ROOT / path).read_text()
        assert [word for word in words if word not in source or word not in PAGE.read_text()] == [], path


@pytest.mark.envoy
def test_the_tasks_envoy_starts_by_its_commands(
    shared_registry: Registry, workplace: Path, tmp_path: Path, task: dict[str, Container]
) -> None:
    """A real Envoy, with the commands of the containers as they stand, but for addresses, paths and the login."""
    admin, listener = free_port(), free_port()
    places = {"9901": str(admin), "9903": "1", "10000": str(listener), "8080": str(shared_registry.port)}

    def here(text: str) -> str:
        ports = re.sub(r"(?<=port_value\":)\d+|(?<=127\.0\.0\.1:)\d+", lambda port: places[port[0]], text)
        return ports.replace("registry.internal", "127.0.0.1").replace(TOKEN_DIRECTORY, str(tmp_path))

    def program(container: str, *left_out: str, **variables: str) -> subprocess.CompletedProcess[str]:
        words = [here(word) for word in task[container]["command"] if word not in left_out]
        command = [sys.executable, "-m", "registrar.cli", *words]
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES} | variables
        return subprocess.run(command, env=environ, check=False, capture_output=True, text=True)

    with FakeTask("tmds-v4-fargate-awsvpc-task") as ecs:
        settings = {name: here(text) for name, text in environment(task["envoy-setup"]).items()}
        settings |= {"REGISTRAR_ENDPOINT": "127.0.0.1:8080"} | ecs.variables
        for name in ("REGISTRAR_LOGIN", "REGISTRAR_LOGIN_AUDIENCE", "REGISTRAR_ENVOY_TOKEN_FILE"):
            del settings[name]
        # To give the directory away needs to be root.
        setup = program("envoy-setup", "--owner", "10001:101", **settings)
        assert setup.returncode == 0, setup.stderr
    written = json.loads((tmp_path / BOOTSTRAP_FILE).read_text())
    assert written["node"]["id"] == TASK_ID
    log = workplace / "task-envoy.log"
    command = [here(word) for word in task["envoy"]["command"]]
    with (
        app(workplace) as served,
        running([binary(), *command, "--use-dynamic-base-id"], log=log),
        contextlib.closing(Envoy(admin, listener, log)) as envoy,
    ):
        shared_registry.register("payments", served.endpoint)
        ready = program("envoy-ready")
        assert (ready.returncode, ready.stdout) == (0, "Envoy is LIVE\n"), log.read_text()
        eventually(lambda: envoy.hosts("payments") == {served.endpoint: "HEALTHY"}, within=20)
        answer = httpx.get(f"http://127.0.0.1:{listener}/work", trust_env=False)
        assert answer.status_code == 200


def test_setup_gives_the_directory_to_registrar_and_envoy() -> None:
    """The empty volume belongs to root; afterwards the registrar may write it, Envoy's group read it, nobody else."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files away, and this is not root")
    # pytest's own directories let nobody but root in, and the token is written by another user.
    with tempfile.TemporaryDirectory(prefix="headcount-envoy-setup-") as made:
        setup_as_root(Path(made))


def setup_as_root(directory: Path) -> None:
    """Run the step before Envoy with a static token, and look at what it leaves."""
    settings = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": SOURCES,
        "REGISTRAR_REGISTRY_URL": "http://127.0.0.1:1",
        "REGISTRAR_SERVICE": "shop",
        "REGISTRAR_ENDPOINT": "127.0.0.1:8080",
        "REGISTRAR_INSTANCE_ID": "task-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "REGISTRAR_ENVOY_TOKEN": "hct_static",
        "REGISTRAR_ENVOY_TOKEN_FILE": str(directory / TOKEN_FILE),
        BOOTSTRAP_VARIABLE: '{"node": {"cluster": "shop"}}',
    }
    command = [
        sys.executable,
        "-m",
        "registrar.cli",
        "envoy-setup",
        "--directory",
        str(directory),
        "--owner",
        "10001:101",
    ]
    done = subprocess.run(command, env=settings, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for path in (directory, *directory.iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == (10001, 101), path
    assert stat.S_IMODE(directory.stat().st_mode) == 0o2750
    token = directory / TOKEN_FILE
    assert (token.read_text(), stat.S_IMODE(token.stat().st_mode)) == ("hct_static", 0o640)
