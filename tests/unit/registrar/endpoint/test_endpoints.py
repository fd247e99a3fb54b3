"""Settings, joined with what the task says of itself."""

import pytest
from msgspec import structs

from registrar.config.settings import Service
from registrar.endpoint.endpoints import with_task_defaults
from registrar.errors import ConfigurationError
from registrar.identity.resolver import Identity
from registrar.identity.spec import EndpointSpec

TASK = Identity("task-1", 1, revision="shop:42", service="shop-web")


PORT = Service(endpoint=EndpointSpec.parse(":8080"))


def test_what_is_configured_wins() -> None:
    """A name and a revision of the settings stay."""
    service = with_task_defaults(structs.replace(PORT, service="mine", revision="r7"), TASK)
    assert (service.service, service.revision) == ("mine", "r7")


def test_a_service_without_any_name_is_a_fault() -> None:
    """Older agents tell no ServiceName: the message says what to set."""
    with pytest.raises(ConfigurationError, match="REGISTRAR_SERVICE: not set for :8080"):
        with_task_defaults(PORT, Identity("vm-1", 1))
