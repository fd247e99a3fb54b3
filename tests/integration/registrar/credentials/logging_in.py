"""The environment of a registrar that logs in with the role of its task."""

from pathlib import Path

from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from harness.link import FakeKeys
from integration.registrar.processes import environment

from wire.envoy_token import TOKEN_FILE

AUTHORIZATION = "s3cret-authorization"
"""The text that the agent of a container wants."""


def logging_in(registry: FakeRegistry, app: FakeApp, agent: FakeKeys, tmp_path: Path, **more: str) -> dict[str, str]:
    """Return the environment of a registrar that logs in and writes Envoy's token."""
    return {
        **environment(registry, app),
        **agent.variables,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": AUTHORIZATION,
        "AWS_REGION": "eu-central-1",
        "REGISTRAR_LOGIN": "aws",
        "REGISTRAR_LOGIN_AUDIENCE": "headcount-tests",
        "REGISTRAR_ENVOY_TOKEN_FILE": str(tmp_path / TOKEN_FILE),
        "REGISTRAR_INSTANCE_ID": "task-1",
        **more,
    }
