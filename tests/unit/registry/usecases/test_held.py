"""The banner's numbers: silent endpoints of the services that a person may read, and of no others."""

import pytest
from unit.registry.making import NOW, endpoint

from registry.auth.grants import Grant
from registry.auth.principal import Principal
from registry.auth.subject import Subject, rejected
from registry.auth.verbs import Verb
from registry.core.snapshot import SnapshotDelta
from registry.process import RegistryProcess
from registry.settings import Settings, load_settings
from registry.usecases.expiry import ExpiryControl, Held

URL = "postgresql://nobody@127.0.0.1:1/nothing"


def control_with(settings: Settings) -> ExpiryControl:
    """Return the use case of a process that is not started, with two silent endpoints of `shop` and one of `cart`."""
    process = RegistryProcess(settings, URL)
    process.cache.clock.set(NOW + 60, 0, 0)
    for service, since in (("shop", (0, 20)), ("cart", (10,)), ("web", ())):
        listed = [endpoint(9, service)]
        listed += [
            endpoint(number, service, suspect_since=NOW + after, suspect_reason="x")
            for number, after in enumerate(since, start=1)
        ]
        process.cache.apply([SnapshotDelta(service, 1, 1, listed=listed, whole=True)])
    control = process.parts[ExpiryControl]
    assert isinstance(control, ExpiryControl)
    return control


@pytest.mark.parametrize(
    ("subject", "held"),
    [
        (Subject("token:a", "machine", [Grant((Verb.READ,))]), Held(3, ["cart", "shop"], NOW)),
        (Subject("token:a", "machine", [Grant((Verb.READ,), ("cart",))]), Held(1, ["cart"], NOW + 10)),
        (Subject("token:a", "machine", [Grant((Verb.READ,), ("web",))]), None),
        (Subject("token:a", "machine", [Grant((Verb.REGISTER,))]), None),
        (Subject(), None),
        (rejected("the token a was revoked"), None),
    ],
)
def test_a_banner_counts_what_may_be_read(subject: Subject, held: Held | None) -> None:
    """Nobody learns of a service that he may not read, and no page fails for somebody who may read nothing."""
    control = control_with(load_settings(auth="on"))
    assert control.held(Principal("10.0.0.7", subject=subject)) == held


def test_everybody_sees_the_banner_while_access_is_off() -> None:
    """As everything else."""
    assert control_with(load_settings()).held(Principal("10.0.0.7")) == Held(3, ["cart", "shop"], NOW)
