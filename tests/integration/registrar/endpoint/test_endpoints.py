"""Endpoints whose name, revision and address an ECS task's metadata gives."""

from harness.link import FakeTask

from registrar.config.settings import Service, Settings
from registrar.endpoint.endpoints import build_endpoints, identity_sources
from registrar.identity.spec import EndpointSpec

PORT = Service(endpoint=EndpointSpec.parse(":8080"))


async def test_a_port_is_enough_in_a_task() -> None:
    """Name, revision, instance and address come from the metadata."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as task:
        settings = Settings(services=(PORT,))
        (endpoint,) = await build_endpoints(settings, identity_sources(settings, task.variables))
    assert endpoint.name == "10.0.2.61:8080"
    assert (endpoint.service.service, endpoint.service.revision) == ("shop-web", "shop:42")
