"""The client of the ECS task metadata endpoint, against a server on loopback."""

import copy
import json
from typing import Any

import pytest
from harness.link import FakeTask, sample

from registrar.errors import MetadataUnavailable
from registrar.identity import lenient
from registrar.identity.metadata import Metadata, Task

ERRORS = sample("tmds-v4-errors")


def metadata(fake: FakeTask, attempts: int = 5, patience: float = 1.0) -> Metadata:
    """Return the client that the fake's environment leads to."""
    return Metadata(fake.variables["ECS_CONTAINER_METADATA_URI_V4"], attempts, patience)


async def test_a_task_says_who_it_is() -> None:
    """Id, region and cluster come from the ARN: the field Cluster is an ARN on Fargate."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as fake:
        task = await metadata(fake).task()
    assert (task.id, task.region, task.cluster) == ("158d1c8083dd49d6b527399fd6414f5c", "ap-northeast-1", "default")
    assert (task.family, task.revision, task.service_name) == ("shop", "42", "shop-web")
    assert [container.name for container in task.containers] == ["envoy", "app", "registrar"]


async def test_the_pause_container_is_nobodys_code() -> None:
    """Only containers of the type NORMAL are those of the task definition."""
    with FakeTask("tmds-v4-ec2-awsvpc-task") as fake:
        task = await metadata(fake).task()
    assert [container.name for container in task.containers] == ["app", "registrar"]
    assert task.container("~internal~ecs~pause") is None


async def test_an_old_arn_without_a_cluster_leaves_it_to_the_field() -> None:
    """Task ARNs of before 2018 have no cluster in them."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as fake:
        fake.task["TaskARN"] = "arn:aws:ecs:eu-west-1:111122223333:task/158d1c80"
        task = await metadata(fake).task()
    assert (task.id, task.cluster) == ("158d1c80", "default")


async def test_the_own_container_is_asked_at_the_base() -> None:
    """The URL without a path is the container that asks."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as fake:
        assert (await metadata(fake).container()).name == "registrar"


async def test_a_restart_in_place_is_another_life() -> None:
    """The same task and the same container, started again: RestartCount tells."""
    lives = []
    for name in ("tmds-v4-ec2-awsvpc-task", "tmds-v4-ec2-awsvpc-app-restarted-in-place-task"):
        with FakeTask(name) as fake:
            app = (await metadata(fake).task()).container("app")
            assert app is not None
            lives.append(app.life)
    assert lives[0] != lives[1]


@pytest.mark.parametrize("name", ["tmds-v4-taskWithTags-partial-error", "tmds-v4-fargate-app-crashed-task"])
async def test_fields_that_nobody_knows_are_ignored(name: str) -> None:
    """The agent adds fields over time; partial errors come beside a whole task."""
    with FakeTask(name) as fake:
        fake.task["Containers"][0]["SomethingNew"] = {"a": [1]}
        assert (await metadata(fake).task()).family == "shop"


@pytest.mark.parametrize("status", [429, 500])
async def test_a_moment_of_overload_is_waited_for(status: int) -> None:
    """The agent limits the rate and fails while it starts: the next answer counts."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as fake:
        fake.failures.extend([(status, json.dumps(ERRORS[str(status)]))] * 2)
        assert (await metadata(fake).task()).family == "shop"
        assert len(fake.requests) == 3


async def test_an_unknown_container_is_not_asked_for_again() -> None:
    """404 is final, and its words, a JSON string, reach the message."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as fake:
        with pytest.raises(MetadataUnavailable, match="404 V4 container metadata handler: unable to get"):
            await Metadata(f"{fake.url}/v4/xyz").task()
        assert len(fake.requests) == 1


async def test_patience_ends() -> None:
    """As many attempts as were asked for, and then the last reason."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as fake:
        fake.failures.extend([(500, '"failed"')] * 9)
        with pytest.raises(MetadataUnavailable, match="500 failed"):
            await metadata(fake, attempts=2).task()
        assert len(fake.requests) == 2


async def test_a_slow_answer_is_given_up() -> None:
    """Each attempt has its time."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as fake:
        fake.latency = 0.5
        with pytest.raises(MetadataUnavailable, match=r"no answer within 0\.1s"):
            await metadata(fake, attempts=1, patience=0.1).task()


async def test_nobody_there_says_so() -> None:
    """A refused connection is a reason like any other."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as fake:
        gone = metadata(fake, attempts=1)
    with pytest.raises(MetadataUnavailable, match="Connect call failed"):
        await gone.task()


@pytest.mark.parametrize("body", ["[]", "{", "null", '"throttled"'])
async def test_an_answer_that_is_no_task_is_refused(body: str) -> None:
    """A proxy's page in its place never becomes an empty task."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as fake:
        fake.failures.append((200, body))
        with pytest.raises(MetadataUnavailable, match="not understood"):
            await metadata(fake).task()


def test_outside_of_ecs_there_is_no_endpoint() -> None:
    """Only the agent's variable leads to one."""
    assert Metadata.of({}) is None
    assert Metadata.of({"ECS_CONTAINER_METADATA_URI_V4": ""}) is None


NULLS: tuple[Any, ...] = (None, 42, "words", [], {}, True, [None], [{}])


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each field in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [inner_path for key, inner in items for inner_path in ((*path, key), *_paths(inner, (*path, key)))]


def _with(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(document)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return changed


@pytest.mark.parametrize("name", ["tmds-v4-ec2-bridge-dynamic-task", "tmds-v4-fargate-awsvpc-task"])
def test_one_field_of_another_type_changes_nothing_else(name: str) -> None:
    """Each field of each document in turn is null or of another type; the rest is read as before."""
    document = sample(name)
    before = lenient.read(json.dumps(document).encode(), Task)
    others = [container["Name"] for container in document["Containers"]]
    for path in _paths(document):
        for wrong in NULLS:
            task = lenient.read(json.dumps(_with(document, path, wrong)).encode(), Task)
            if path[0] != "TaskARN":
                assert (task.id, task.region) == (before.id, before.region)
            if path[0] != "Containers":
                assert task.containers == before.containers
            elif len(path) > 2:
                for number, other in enumerate(others):
                    if number != path[1]:
                        assert task.container(other) == before.container(other)


async def test_what_is_needed_of_a_document_may_still_be_missed() -> None:
    """A revision that is a number is its text; a task without its ARN has no id."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as fake:
        fake.task |= {"Revision": 42, "ServiceName": None, "AvailabilityZone": {"a": 1}}
        task = await metadata(fake).task()
        assert (task.revision, task.service_name, task.availability_zone) == ("42", "", "")
        fake.task["TaskARN"] = None
        assert (await metadata(fake).task()).id == ""
