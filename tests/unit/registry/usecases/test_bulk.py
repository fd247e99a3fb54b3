"""Changes of several endpoints, while PostgreSQL does not answer."""

from typing import Any, cast

from registry.auth.principal import Principal
from registry.errors import RefusedError, RegistryError, UnavailableError
from registry.usecases.bulk import BulkChange, BulkChanges

OPERATOR = cast("Principal", None)
NAMES = [f"10.0.0.{number}:8080" for number in range(1, 101)]
AWAY = UnavailableError("PostgreSQL did not answer within 5 s")


class Allowing:
    """A policy that allows everything."""

    def allow(self, *_: object) -> None:
        """Do nothing."""


class Deregistration:
    """Deregisters endpoints, until the errors that it is given begin."""

    def __init__(self, good: int, error: RegistryError) -> None:
        self.asked = 0
        self._good, self._error = good, error

    async def endpoint(self, *_: object, **__: object) -> None:
        """Deregister one endpoint, or fail."""
        self.asked += 1
        if self.asked > self._good:
            raise self._error


def bulk(deregistration: Deregistration) -> BulkChanges:
    """Return the use case with that deregistration."""
    registrations: Any = None
    return BulkChanges(cast("Any", Allowing()), registrations, cast("Any", deregistration))


async def test_deregistrations_end_when_postgresql_no_longer_answers() -> None:
    """Each further one would wait for its whole time-out, 200 of them for a quarter of an hour."""
    deregistration = Deregistration(3, AWAY)
    results = await bulk(deregistration).change(OPERATOR, "shop", NAMES, BulkChange("deregister", "gone"))
    assert deregistration.asked == 4
    assert [result.endpoint for result in results] == NAMES
    assert [result.error for result in results] == [None] * 3 + [AWAY] * 97


async def test_a_deregistration_that_postgresql_refuses_ends_no_other() -> None:
    """It answers, and may accept the next one."""
    deregistration = Deregistration(3, RefusedError("refused", cause="refused", row_specific=True))
    await bulk(deregistration).change(OPERATOR, "shop", NAMES, BulkChange("deregister", "gone"))
    assert deregistration.asked == 100


async def test_an_endpoint_is_changed_once_however_it_is_written() -> None:
    """An IPv6 address has many forms; the result names the first one, and text that is no endpoint is refused alone."""
    deregistration = Deregistration(10, AWAY)
    names = ["[::1]:80", "[0:0::1]:80", "nonsense", "10.0.0.1:80", "[::1]:80", "nonsense"]
    results = await bulk(deregistration).change(OPERATOR, "shop", names, BulkChange("deregister", "gone"))
    assert [result.endpoint for result in results] == ["[::1]:80", "nonsense", "10.0.0.1:80"]
    assert [result.error is None for result in results] == [True, False, True]
    assert deregistration.asked == 2
