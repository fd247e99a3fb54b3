"""The ecs check against the samples of the task metadata endpoint, over real HTTP."""

import json
from pathlib import Path
from typing import Any

import pytest
from harness.fake_app import FakeApp
from harness.probing import probe

from registrar.checks.ecs import EcsOptions
from registrar.checks.result import Outcome
from registrar.identity.metadata import VARIABLE

SAMPLES = Path(__file__).parents[3] / "samples"
APP = EcsOptions(container="app")


def sample(name: str, **app: Any) -> dict[str, Any]:
    """Return a sampled task with some fields of its app container replaced; None takes one away."""
    task: dict[str, Any] = json.loads((SAMPLES / f"tmds-v4-{name}-task.json").read_text())
    (container,) = [container for container in task["Containers"] if container["Name"] == "app"]
    container.update(app)
    for field in [field for field, value in app.items() if value is None]:
        del container[field]
    return task


def answer(document: object, status: str = "200 OK") -> bytes:
    """Return the agent's answer."""
    body = json.dumps(document).encode()
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture(autouse=True)
def agent(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> FakeApp:
    """The ECS agent's endpoint, named by the environment."""
    monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{app.port}/v4/x")
    return app


@pytest.mark.parametrize(
    ("document", "outcome", "detail"),
    [
        (sample("fargate-awsvpc"), Outcome.PASSED, "container is HEALTHY ok"),
        (sample("ec2-bridge-dynamic"), Outcome.PASSED, "container is HEALTHY ok"),
        (sample("fargate-stopping"), Outcome.PASSED, "container is HEALTHY ok"),
        (sample("fargate-app-crashed"), Outcome.FAILED, "container is STOPPED (exit status 137)"),
        (sample("ec2-awsvpc-starting"), Outcome.FAILED, "container is PULLED"),
        (
            sample("fargate-awsvpc", Health={"status": "UNHEALTHY", "output": "curl: (7)"}),
            Outcome.FAILED,
            "container is UNHEALTHY curl: (7)",
        ),
        (sample("fargate-awsvpc", KnownStatus=[]), Outcome.UNKNOWN, "the container has no KnownStatus"),
        ({"Containers": None}, Outcome.UNKNOWN, "the agent's list of containers"),
        ({"Containers": [{"Name": None, "Type": "NORMAL"}]}, Outcome.UNKNOWN, "the agent's list of containers"),
        (sample("fargate-awsvpc", Health=None), Outcome.PASSED, "container is RUNNING; it has no healthCheck"),
        (sample("fargate-awsvpc", Health={}), Outcome.UNKNOWN, "container is RUNNING; its healthCheck has no "),
        (sample("fargate-awsvpc", Health={"status": "UNKNOWN"}), Outcome.UNKNOWN, "container is RUNNING; its health"),
        (
            sample("fargate-awsvpc", Name="renamed"),
            Outcome.FAILED,
            "no container 'app' in the task; its containers: envoy, renamed, registrar",
        ),
    ],
)
async def test_the_containers_state_and_health_count(
    agent: FakeApp, document: object, outcome: Outcome, detail: str
) -> None:
    """Missing and stopped fail, a Health without a status is evidence for nothing."""
    agent.answer = answer(document)
    result = await probe(APP)
    assert (result.outcome, result.detail[: len(detail)]) == (outcome, detail)
    assert agent.requests[0].startswith("GET /v4/x/task HTTP/1.1\r\n")


@pytest.mark.parametrize("change", [{"RestartCount": 3}, {"StartedAt": "2026-11-21T00:00:00Z"}, {"DockerId": "other"}])
async def test_each_start_of_the_container_is_another_life(agent: FakeApp, change: dict[str, object]) -> None:
    """A restart in place shows in any of three fields; an unchanged container stays the same."""
    agent.answer = answer(sample("ec2-awsvpc-app-restarted-in-place"))
    first, again = await probe(APP), await probe(APP)
    agent.answer = answer(sample("ec2-awsvpc-app-restarted-in-place", **change))
    other = await probe(APP)
    assert first.app_start
    assert first.app_start == again.app_start != other.app_start


async def test_a_container_that_never_started_has_no_life(agent: FakeApp) -> None:
    """Its first start is not a restart."""
    agent.answer = answer(sample("ec2-awsvpc-starting"))
    assert (await probe(APP)).app_start == ""


@pytest.mark.parametrize("status", ["404 Not Found", "429 Too Many Requests", "500 Internal Server Error"])
async def test_an_agent_that_does_not_answer_is_no_evidence(agent: FakeApp, status: str) -> None:
    """Its rate limit and its errors are not the app's."""
    agent.answer = answer("You have reached maximum request limit.", status)
    assert (await probe(APP)).outcome is Outcome.UNKNOWN


async def test_an_agent_that_hangs_or_is_away_is_no_evidence(
    agent: FakeApp, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """Nor are its silence, other words than JSON, and a refused connection."""
    agent.answer = None
    assert (await probe(APP)).outcome is Outcome.UNKNOWN
    agent.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[["
    assert (await probe(APP)).outcome is Outcome.UNKNOWN
    monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{unused_tcp_port}/v4/x")
    assert (await probe(APP)).outcome is Outcome.UNKNOWN


async def test_outside_of_ecs_the_check_fails_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration for ECS on a laptop is a mistake to be seen."""
    monkeypatch.delenv(VARIABLE)
    result = await probe(APP)
    assert (result.outcome, result.detail) == (
        Outcome.FAILED,
        f"not in an ECS task: {VARIABLE} is not set; remove the ecs check here",
    )
