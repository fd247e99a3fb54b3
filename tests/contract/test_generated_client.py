"""A client that is generated from openapi.yaml, against a registry that runs: `make client`."""

import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.access import first_token
from harness.postgres import Postgres
from harness.registry import Registry, registry

pytestmark = pytest.mark.client

ROOT = Path(__file__).parents[2]
PACKAGE = "generated_headcount"
SERVICE, ENDPOINT = "shop", "10.0.0.5:8080"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of the generated package, which can be imported."""
    folder = tmp_path_factory.mktemp("generated")
    # Formatting is its only other step, which costs more than the rest.
    (folder / "config.yaml").write_text("post_hooks: []\n")
    command = [os.environ["OPENAPI_CLIENT_GENERATOR"], "generate", "--path", str(ROOT / "openapi.yaml")]
    command += ["--output-path", str(folder / PACKAGE), "--meta", "none", "--config", str(folder / "config.yaml")]
    done = subprocess.run([*command, "--fail-on-warning"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield PACKAGE
    sys.path.remove(str(folder))


@pytest.fixture
def api(generated: str, closed: tuple[Registry, str]) -> Iterator["Api"]:
    """The operations, asked by the administrator."""
    started, token = closed
    with contextlib.closing(Api(generated, started.url, token)) as opened:
        yield opened


@pytest.fixture
def nobody(generated: str, closed: tuple[Registry, str]) -> Iterator["Api"]:
    """The operations, asked without a credential."""
    with contextlib.closing(Api(generated, closed[0].url, None)) as opened:
        yield opened


@pytest.fixture(scope="module")
def closed(server: Postgres, workplace: Path) -> Iterator[tuple[Registry, str]]:
    """A registry that asks everybody for a credential, and an administrator's token."""
    database = server.migrated_database()
    token = first_token(database)
    with registry(database, workplace, auth="on") as started:
        yield started, token


class Api:
    """The operations of the generated package, by their operationIds, asked with one credential."""

    def __init__(self, package: str, url: str, token: str | None) -> None:
        self._package = package
        made: Any = importlib.import_module(f"{package}.client")
        # A status that the document does not promise is an error, not None.
        options = {"base_url": url, "httpx_args": {"trust_env": False}, "raise_on_unexpected_status": True}
        self._client = made.Client(**options) if token is None else made.AuthenticatedClient(**options, token=token)
        self.models: Any = importlib.import_module(f"{package}.models")

    def ask(self, tag: str, operation: str, *path: str, status: int = 200, **arguments: Any) -> Any:
        """Call an operation, and return the document of its response, which has to have this status."""
        module: Any = importlib.import_module(f"{self._package}.api.{tag}.{operation}")
        response = module.sync_detailed(*path, client=self._client, **arguments)
        assert response.status_code == status, response.content
        return response.parsed

    def close(self) -> None:
        """Close its connections."""
        self._client.get_httpx_client().close()

    def registration(self, instance: str, incarnation: int) -> Any:
        """Return a registration as the generated package has it."""
        return self.models.Registration(instance_id=instance, incarnation=incarnation)


def test_every_operation_was_generated(generated: str) -> None:
    """The generator understood the whole document: each operation is a module of its tag's package."""
    paths = yaml.safe_load((ROOT / "openapi.yaml").read_text())["paths"]
    operations = [operation for methods in paths.values() for operation in methods.values()]
    assert len(operations) > 60
    for operation in operations:
        tag = operation["tags"][0].replace("-", "_")
        module: Any = importlib.import_module(f"{generated}.api.{tag}.{operation['operationId']}")
        assert callable(module.sync_detailed)


def test_an_endpoint_is_registered_listed_drained_explained_and_deregistered(api: "Api") -> None:
    """The generated client does what registrars and operators do, and gets typed documents."""
    granted = api.ask("registration", "register_endpoint", SERVICE, ENDPOINT, body=api.registration("i-1", 1))
    assert isinstance(granted, api.models.Grant)
    assert granted.ttl > 0
    (service,) = api.ask("catalog", "list_services").services
    assert (service.name, service.statuses.additional_properties["HEALTHY"]) == (SERVICE, 1)
    (endpoint,) = api.ask("catalog", "list_endpoints", SERVICE).endpoints
    assert (endpoint.endpoint, endpoint.status) == (ENDPOINT, api.models.Health.HEALTHY)
    body = api.models.FetchEndpointsV3Body(resource_names=[SERVICE])
    polled = api.ask("discovery", "fetch_endpoints_v3", body=body)
    (resource,) = polled.resources
    assert resource["cluster_name"] == SERVICE
    assert api.ask("registration", "drain_endpoint", SERVICE, ENDPOINT).status == api.models.Health.DRAINING
    explained = api.ask("history", "explain_endpoint", SERVICE, ENDPOINT)
    assert (explained.status, explained.served) == ("DRAINING", False)
    assert [event.kind for event in explained.events] == ["registered", "drained"]
    api.ask("registration", "deregister_endpoint", SERVICE, ENDPOINT, status=204)
    events = api.ask("history", "list_events", service=SERVICE).events
    assert {event.endpoint for event in events} == {ENDPOINT}


def test_refusals_are_typed_problems(api: "Api", nobody: "Api") -> None:
    """A problem document is a class with its fields, for a missing credential, a missing thing and another owner."""
    refused = nobody.ask("catalog", "list_services", status=401)
    missing = api.ask("catalog", "get_endpoint", "nobody-here", ENDPOINT, status=404)
    api.ask("registration", "register_endpoint", "owned", ENDPOINT, body=api.registration("i-1", 7))
    fenced = api.ask(
        "registration", "register_endpoint", "owned", ENDPOINT, body=api.registration("i-1", 6), status=409
    )
    for problem, status in ((refused, 401), (missing, 404), (fenced, 409)):
        assert isinstance(problem, api.models.Problem)
        assert problem.status == status
        assert problem.detail
    assert fenced.incarnation == 7
    assert nobody.ask("operations", "get_liveness") == "ok\n"
