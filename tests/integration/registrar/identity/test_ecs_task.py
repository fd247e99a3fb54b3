"""The address of an ECS task, for each network mode, from the documents that the agent writes."""

import json
from pathlib import Path

import pytest
from harness.link import FakeImds, FakeTask, Link, sample

from registrar.errors import AddressError, IdentityError
from registrar.identity.ec2 import Ec2
from registrar.identity.ecs_task import EcsTask
from registrar.identity.metadata import Metadata
from registrar.identity.metadata_file import MetadataFile
from registrar.identity.resolver import explain, resolve_identity, resolve_location
from registrar.identity.source import Facts, Location, Source
from registrar.identity.sources import sources
from registrar.identity.spec import EndpointSpec

APP = EndpointSpec.parse(":8080")
READY = sample("ecs-container-metadata-file-bridge-ready")


def asked(*links: FakeTask | FakeImds, patience: float = 0.0, file: str = "") -> tuple[Source, ...]:
    """Return the sources of a process whose environment leads to these servers."""
    environ = {"AWS_EC2_METADATA_DISABLED": "true"} if not any(isinstance(link, FakeImds) for link in links) else {}
    for link in links:
        environ |= link.variables
    return sources(Facts(), environ | {"ECS_CONTAINER_METADATA_FILE": file}, patience)


async def resolved(spec: str, *links: FakeTask | FakeImds, container: str = "", file: str = "") -> tuple[str, int]:
    """Return the address and port of an endpoint setting."""
    location = await resolve_location(EndpointSpec.parse(spec), asked(*links, file=file), container)
    return location.address, location.port


def ready_file(directory: Path) -> str:
    """Write the file of a container that runs, and return its path."""
    path = directory / "ecs-container-metadata.json"
    path.write_text(json.dumps(READY))
    return str(path)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("tmds-v4-fargate-awsvpc-task", "10.0.2.61"),
        ("tmds-v4-ec2-awsvpc-task", "10.0.2.100"),
        ("tmds-v4-ec2-awsvpc-starting-task", "10.0.2.100"),
        ("tmds-v4-ec2-awsvpc-app-restarted-in-place-task", "10.0.2.100"),
        ("tmds-v4-managed-instances-task", "10.0.2.100"),
        ("tmds-v4-taskWithTags-partial-error", "10.0.2.100"),
    ],
)
@pytest.mark.parametrize("container", ["", "app"])
async def test_awsvpc_advertises_the_interface_and_the_containers_port(name: str, address: str, container: str) -> None:
    """The task's interface is its own, from before the app starts, and IMDS is never asked for it."""
    with FakeTask(name) as task, FakeImds() as imds:
        assert await resolved(":8080", task, imds, container=container) == (address, 8080)
        assert imds.requests == []


async def test_a_subnet_without_ipv4_gives_its_ipv6_address() -> None:
    """An interface may have IPv6 alone."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as task:
        for container in task.task["Containers"]:
            container["Networks"] = [{"NetworkMode": "awsvpc", "IPv6Addresses": ["2001:db8::5"]}]
        assert await resolved(":8080", task) == ("2001:db8::5", 8080)


@pytest.mark.parametrize("container", ["", "app"])
async def test_bridge_advertises_the_host_and_its_dynamic_port(tmp_path: Path, container: str) -> None:
    """The container's port becomes the host's; the two entries of IPv4 and IPv6 are one port."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task:
        file = ready_file(tmp_path)
        assert await resolved(":8080", task, container=container, file=file) == ("10.0.8.17", 32769)
        assert await resolved(":9090", task, container=container, file=file) == ("10.0.8.17", 32770)


async def test_bridge_without_the_file_asks_imds() -> None:
    """IMDSv2 knows the host: one token, then the address."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task, FakeImds() as imds:
        assert await resolved(":8080", task, imds) == ("10.0.8.17", 32769)
        assert imds.requests == [("PUT", "/latest/api/token"), ("GET", "/latest/meta-data/local-ipv4")]


async def test_the_port_of_ipv4_is_taken_where_docker_gives_two(tmp_path: Path) -> None:
    """Docker may map IPv4 and IPv6 to different ports; the host's address that is advertised is IPv4."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task:
        ports = task.container("app")["Ports"]
        ports[1]["HostPort"] = 40000
        ports.reverse()
        assert await resolved(":8080", task, file=ready_file(tmp_path)) == ("10.0.8.17", 32769)


@pytest.mark.parametrize("source", ["file", "imds"])
async def test_a_host_with_ipv6_alone_is_advertised_by_that(tmp_path: Path, source: str) -> None:
    """With the port that Docker gave IPv6, where it differs."""
    path = tmp_path / "ecs-container-metadata.json"
    document = {name: value for name, value in READY.items() if name != "HostPrivateIPv4Address"}
    path.write_text(json.dumps(document | {"HostIPv6Address": "2600:1f18::17", "HostPublicIPv4Address": None}))
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task, FakeImds() as imds:
        imds.ipv6_only = True
        task.container("app")["Ports"][1]["HostPort"] = 40000
        file = str(path) if source == "file" else ""
        assert await resolved(":8080", task, imds, file=file) == ("2600:1f18::17", 40000)
        moved = next(source for source in asked(task) if isinstance(source, EcsTask)).moved
        assert not await moved(APP, "", Location("2600:1f18::17", 40000))
        assert await moved(APP, "", Location("10.0.8.17", 40000))


@pytest.mark.parametrize("wrong", [None, 5, {}])
async def test_a_metadata_file_with_a_strange_field_is_read(tmp_path: Path, wrong: object) -> None:
    """Only what is needed counts."""
    path = tmp_path / "ecs-container-metadata.json"
    path.write_text(json.dumps(READY | {"HostIPv6Address": wrong, "TaskARN": wrong}))
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task:
        task.container("registrar").update(StartedAt=wrong, Networks=wrong, Health=wrong)
        assert await resolved(":8080", task, file=str(path)) == ("10.0.8.17", 32769)


async def test_host_mode_advertises_the_host_and_the_containers_port(tmp_path: Path) -> None:
    """There is nothing to map, and the empty address of the sample is never advertised."""
    with FakeTask("tmds-v4-ec2-host-task") as task, FakeImds() as imds:
        assert await resolved(":8080", task, imds) == ("10.0.8.17", 8080)
        assert await resolved(":8080", task, file=ready_file(tmp_path)) == ("10.0.8.17", 8080)


async def test_a_setting_that_names_an_address_needs_no_metadata() -> None:
    """Configuration is the first source: nobody else is asked."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task:
        assert await resolved("10.9.9.9:8080", task) == ("10.9.9.9", 8080)
        assert task.requests == []


@pytest.mark.parametrize(
    ("name", "instance_id"),
    [
        ("tmds-v4-fargate-awsvpc-task", "158d1c8083dd49d6b527399fd6414f5c"),
        ("tmds-v4-ec2-bridge-dynamic-task", "c13b4cb40f1f4fe4a2971f76ae5a47ad"),
    ],
)
async def test_the_task_is_the_instance(name: str, instance_id: str) -> None:
    """The task's id, place and names are the facts; the host's own never are, though IMDS would tell them."""
    with FakeTask(name) as task, FakeImds() as imds:
        identity = await resolve_identity(asked(task, imds))
        assert imds.requests == []
    assert (identity.instance_id, identity.region, identity.zone) == (instance_id, "ap-northeast-1", "ap-northeast-1c")
    assert (identity.cluster, identity.revision, identity.service) == ("default", "shop:42", "shop-web")


async def test_what_is_configured_wins_over_the_task() -> None:
    """A fact of the settings is never replaced."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as task:
        facts = Facts(instance_id="mine", region="r", zone="z")
        identity = await resolve_identity(sources(facts, task.variables, 0))
    assert (identity.instance_id, identity.region, identity.zone) == ("mine", "r", "z")


async def test_without_metadata_neither_the_instance_nor_its_address_is_guessed() -> None:
    """The machine's id is that of all its tasks; one that is configured does, and the other facts stay empty."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as task:
        task.task = {}
        gone = {"ECS_CONTAINER_METADATA_URI_V4": f"{task.url}/v4/gone", "AWS_EC2_METADATA_DISABLED": "true"}
        sources_of_task = sources(Facts(), gone, 0)
        with pytest.raises(IdentityError, match=r"which task this is cannot be had: .*404.*REGISTRAR_INSTANCE_ID"):
            await resolve_identity(sources_of_task)
        named = await resolve_identity(sources(Facts("mine"), gone, 60))
        assert (named.instance_id, named.region) == ("mine", "")
        with pytest.raises(IdentityError, match="it has no TaskARN"):
            await resolve_identity(asked(task))
        with pytest.raises(AddressError, match=r"metadata cannot be had: .*404.*; see whether the ECS agent is well"):
            await resolve_location(APP, sources_of_task)


async def test_a_container_that_starts_later_is_waited_for(tmp_path: Path) -> None:
    """Its host port exists only once it runs; the registrar may well be first."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task:
        app = dict(task.container("app"))
        late = task.container("app")
        for key in ("Ports", "StartedAt", "Networks"):
            del late[key]
        sources_of_task = asked(task, patience=20, file=ready_file(tmp_path))
        with pytest.raises(
            AddressError, match=r"no container app has started; .*depend on the app's with condition START"
        ):
            await resolved(":8080", task, container="app")
        late["KnownStatus"] = "PULLED"
        task.failures.append((200, json.dumps(task.task)))
        late.update(app)
        assert (await resolve_location(APP, sources_of_task, "app")).port == 32769
    assert len(task.requests) >= 2


async def test_a_name_that_no_container_has_says_so() -> None:
    """Neither the address nor the port of another container is taken in its place."""
    with (
        FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task,
        pytest.raises(AddressError, match=r"no container appp has started; .*REGISTRAR_CONTAINER"),
    ):
        await resolved(":8080", task, container="appp")


@pytest.mark.parametrize(("container", "names"), [("app", "app"), ("", "app and registrar")])
async def test_a_port_that_is_not_mapped_says_which_are(container: str, names: str) -> None:
    """The host's port in the setting, or a forgotten portMapping: both are a refusal with the fix."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task:
        expected = rf"port 32769 of {names} is not mapped to the host; it maps 8080, 9090; .*portMappings"
        with pytest.raises(AddressError, match=expected):
            await resolved(":32769", task, container=container)


async def test_a_port_of_two_containers_needs_a_name(tmp_path: Path) -> None:
    """The app's container is not guessed if several map the port."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task:
        task.container("registrar")["Ports"] = [{"ContainerPort": 8080, "HostPort": 32999, "HostIp": "0.0.0.0"}]
        with pytest.raises(AddressError, match=r"mapped by the containers app and registrar; set REGISTRAR_CONTAINER"):
            await resolved(":8080", task)
        file = ready_file(tmp_path)
        assert await resolved(":8080", task, container="registrar", file=file) == ("10.0.8.17", 32999)


async def test_a_network_that_nobody_reaches_is_refused() -> None:
    """Mode none, or a network of somebody's own, has no address to advertise."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task:
        for container in task.task["Containers"]:
            container["Networks"][0]["NetworkMode"] = "none"
        with pytest.raises(AddressError, match=r"network mode 'none'.*use awsvpc, bridge or host"):
            await resolved(":8080", task)


async def test_the_file_is_waited_for_until_it_is_ready(tmp_path: Path) -> None:
    """The agent writes it twice; the first version has no address."""
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(sample("ecs-container-metadata-file-initial")))
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as fake:
        task = EcsTask(Metadata.of(fake.variables))
        never = await MetadataFile(task, str(path), patience=0.2).locate(APP, "app")
        assert (never.location, never.said) == (None, "not READY within 0.2s")
        missing = await MetadataFile(task, str(tmp_path / "nope"), patience=0.1).locate(APP, "app")
        assert missing.location is None
        ready_file(tmp_path)
        there = await MetadataFile(task, str(tmp_path / "ecs-container-metadata.json")).locate(APP, "app")
    assert there.location is not None
    assert (there.location.address, there.location.port) == ("10.0.8.17", 32769)


async def test_a_token_lost_on_its_way_into_a_bridge_says_the_fix(tmp_path: Path) -> None:
    """The reply dies at hop limit 1: that looks like silence, and the error names HttpPutResponseHopLimit."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as fake, FakeImds() as imds:
        imds.silent.add("/latest/api/token")
        task = EcsTask(Metadata.of(fake.variables))
        answer = await Ec2(imds.variables, task, tmp_path).locate(APP, "")
        assert answer.location is None
        assert "no answer within 1s" in answer.said
        assert "HttpPutResponseHopLimit=2" in answer.fix
        assert imds.requests == [("PUT", "/latest/api/token")]


async def test_nobody_who_knows_the_host_is_an_error_with_every_fix(tmp_path: Path) -> None:
    """File, IMDS and API each say what would make them answer; the container's own route is not taken."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as fake:
        task = EcsTask(Metadata.of(fake.variables))
        asked_sources = (task, MetadataFile(task, ""), Ec2({}, EcsTask(None), tmp_path))
        with pytest.raises(AddressError) as raised:
            await resolve_location(APP, asked_sources)
    message = str(raised.value)
    assert "asked: ecs-metadata, ecs-metadata-file, ec2-imds" in message
    assert "ECS_ENABLE_CONTAINER_METADATA=true" in message
    assert "REGISTRAR_ENDPOINT=10.0.0.5:8080" in message


async def test_the_machines_route_counts_in_host_mode_only() -> None:
    """In bridge mode it would show an address of Docker's, which exists on each machine."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as bridge, FakeTask("tmds-v4-ec2-host-task") as host:
        for fake, expected in ((bridge, "not asked: in bridge mode"), (host, "default route")):
            vm = asked(fake)[-1]
            assert vm.name == "vm"
            assert expected in (await vm.locate(APP, "")).said


async def test_explain_tells_what_each_source_answered(tmp_path: Path) -> None:
    """In order, with the chosen one marked, and the costly one left alone."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task, FakeImds() as imds:
        explanations = await explain(asked(task, imds, file=ready_file(tmp_path)), APP, "app")
    assert [(explanation.source, explanation.chosen) for explanation in explanations] == [
        ("configuration", False),
        ("ecs-metadata", False),
        ("ecs-metadata-file", True),
        ("ec2-imds", False),
        ("aws-api", False),
        ("vm", False),
    ]
    assert "port 32769" in explanations[1].answered
    assert explanations[1].asked.endswith("/v4/abc/task")
    assert explanations[2].location == explanations[3].location
    assert explanations[4].answered == "not asked: ecs-metadata-file decided"


async def test_explain_ends_at_a_refusal() -> None:
    """The source that refuses has the fix, and nobody behind it is asked."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task:
        explanations = await explain(asked(task), EndpointSpec.parse(":1234"))
    (refused,) = [explanation for explanation in explanations if explanation.refused]
    assert refused.source == "ecs-metadata"
    assert "1234" in refused.answered
    assert "portMappings" in refused.fix
    assert not any(explanation.chosen for explanation in explanations)
    assert explanations[-1].answered == "not asked: ecs-metadata decided"


async def test_overload_of_the_agent_does_not_change_the_address() -> None:
    """429, 500 and a slow answer are waited for."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as task:
        task.failures.extend([(429, '"slow down"'), (500, '"failed"')])
        task.latency = 0.05
        assert await resolved(":8080", task) == ("10.0.2.61", 8080)


async def test_an_agent_that_is_throttled_for_long_is_waited_for() -> None:
    """A burst of 429s at a deploy neither ends a container nor makes the task its machine."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as task:
        sources_of_task = [EcsTask(Metadata(task.variables["ECS_CONTAINER_METADATA_URI_V4"], attempts=2), patience=60)]
        task.failures.extend([(429, '"slow down"')] * 3)
        assert (await resolve_identity(sources_of_task)).instance_id == "158d1c8083dd49d6b527399fd6414f5c"
        task.failures.extend([(429, '"slow down"')] * 3)
        assert (await resolve_location(APP, sources_of_task, "app")).address == "10.0.2.61"


def test_a_link_is_no_answer_by_itself() -> None:
    """The fake's base class leaves the answers to its kinds."""
    with pytest.raises(NotImplementedError):
        Link().answer("GET", "/", {})


async def test_a_restart_in_place_may_move_the_port(tmp_path: Path) -> None:
    """Docker gives a container that starts again another dynamic port: each search asks anew."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task:
        sources_of_task = asked(task, file=ready_file(tmp_path))
        assert (await resolve_location(APP, sources_of_task)).port == 32769
        task.container("app")["Ports"] = [{"ContainerPort": 8080, "HostPort": 32801, "HostIp": "0.0.0.0"}]
        assert (await resolve_location(APP, sources_of_task)).port == 32801
