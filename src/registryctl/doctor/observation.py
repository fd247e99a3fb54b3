"""Looking at every part of the system once, and a second time where one moment says too little."""

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from importlib.metadata import version

from msgspec.structs import replace

from registryctl.addresses import Address, addresses_of
from registryctl.client import NOBODY, Client, read
from registryctl.doctor.checks.envoy import delay_of, is_behind
from registryctl.doctor.envoy_admin import Admin
from registryctl.doctor.evidence import Document, EnvoyLook, Look, RegistryLook
from registryctl.errors import CtlError, MissingError
from registryctl.paths import path_of
from registryctl.settings import Settings

_SETTLE = 1.5
"""Seconds between two looks at what counts up."""

_LONGEST_LAG = 15.0
"""Seconds that an Envoy is given to take what has just changed, at the most."""

_REMEMBERED = 600.0
"""Seconds back for which a lapsed lease is still told of."""

_MOST_LAPSES = 100


class Observer:
    """Looks at the registry at every address, and at the Envoys that are named.

    Args:
        settings: where to ask, and how long to wait.
        envoys: URLs of admin interfaces.
    """

    def __init__(self, settings: Settings, envoys: Sequence[str]) -> None:
        self._settings = settings
        self._envoys = envoys

    def look(self) -> Look:
        """Return everything that could be seen now."""
        with ExitStack() as opened:
            addresses = [one for url in self._settings.urls for one in addresses_of(url)]
            clients = [opened.enter_context(closing(self._client(one))) for one in addresses]
            admins = [opened.enter_context(closing(Admin(url, self._settings.timeout))) for url in self._envoys]
            begun = time.monotonic()
            envoys = [admin.look() for admin in admins]
            registries = [_registry(client) for client in clients]
            registries = _compared(clients, registries)
            look = Look(version("headcount"), registries, envoys=envoys)
            for client, seen in zip(clients, registries, strict=True):
                if seen.services is not None:
                    look = _completed(look, client)
                    break
            return replace(look, envoys=_again(admins, look, begun))

    def _client(self, address: Address) -> Client:
        return Client(replace(self._settings, urls=(address.url,)), address.name)


def _registry(client: Client) -> RegistryLook:
    found = RegistryLook(client.shown)
    try:
        client.ask("GET", "/livez")
        ready = client.readiness()
        found = replace(found, ready=ready, version=read(client.get("/version")))
        before, begun = time.time(), time.monotonic()
        state = _optional(client, "/v1/state")
        took = time.monotonic() - begun
        found = replace(found, state=state, asked_at=before + took / 2, took=took)
        if ready["ready"]:
            services = [read(one) for one in client.pages("/v1/services", "services")]
            found = replace(found, services=services)
    except CtlError as error:
        return (
            found
            if found.ready is not None
            else replace(found, error=str(error).removeprefix(f"{NOBODY}{client.shown}: "))
        )
    return found


def _optional(client: Client, path: str) -> Document | None:
    """Return a document, or None from a registry of before there was one."""
    try:
        return read(client.get(path))
    except MissingError:
        return None


def _compared(clients: Sequence[Client], seen: list[RegistryLook]) -> list[RegistryLook]:
    """Look again, a while later, where addresses do not agree: a change takes its time from one to the next."""
    told = [one.versions() for one in seen if one.services is not None]
    if all(versions == told[0] for versions in told[1:]):
        return seen
    time.sleep(_SETTLE)
    later = []
    for client, one in zip(clients, seen, strict=True):
        again = _registry(client) if one.services is not None else one
        later.append(replace(one, later=again.versions()) if again.services is not None else one)
    return later


def _completed(look: Look, client: Client) -> Look:
    """Add what one address tells of the whole; what it cannot tell now stays unknown."""
    with suppress(CtlError):
        look = replace(look, expiry=read(client.get("/v1/expiry")))
    with suppress(CtlError):
        found = [read(one) for one in client.pages("/v1/subscribers", "subscribers")]
        told = read(client.get("/v1/subscribers", {"limit": 1}))
        # A registry of before there was a limit does not name it.
        refused_ago = told.get("refused_ago")
        look = replace(look, subscribers=found, complete=bool(told["complete"]), refused_ago=refused_ago)
    with suppress(CtlError):
        look = replace(look, silent=_silent(look, client))
    return look


def _silent(look: Look, client: Client) -> list[Document]:
    """Return whose lease has lapsed: those that are listed still, then those that were removed since."""
    lapsed = [one["name"] for one in look.services or () if one["statuses"].get("TIMEOUT")]
    found = [
        one | {"at": one["lapsed_at"] or client.now, "listed": True}
        for name in lapsed
        for one in map(read, client.pages(path_of(name, rest="/endpoints"), "endpoints", {"status": "TIMEOUT"}))
    ]
    known = {(one["service"], one["endpoint"]) for one in found}
    wanted = {"kind": "lapsed", "since": client.now - _REMEMBERED}
    try:
        lapses = [read(one) for one in client.pages("/v1/events", "events", wanted, most=_MOST_LAPSES)]
    except CtlError:
        return found
    for lapse in lapses:
        place = (lapse["service"], lapse["endpoint"])
        if place not in known and _is_gone(client, *place):
            found.append(lapse | {"listed": False})
        known.add(place)
    return found


def _is_gone(client: Client, service: str, endpoint: str) -> bool:
    try:
        client.get(path_of(service, endpoint))
    except MissingError:
        return True
    return False


def _again(admins: Sequence[Admin], look: Look, begun: float) -> list[EnvoyLook]:
    """Look at counters a second time, and once more as long as an Envoy may still be taking what is new."""
    seen = list(look.envoys)
    if not any(one.clusters for one in seen):
        return seen
    time.sleep(max(0.0, begun + _SETTLE - time.monotonic()))
    while True:
        seen = [_counted_again(admin, one) for admin, one in zip(admins, seen, strict=True)]
        lagging = [
            cluster
            for one in seen
            for cluster in one.clusters
            if is_behind(cluster, look) and not cluster.then.get("update_rejected")
        ]
        patience = min(_LONGEST_LAG, max((2 * delay_of(one.config) + 1 for one in lagging), default=0.0))
        if time.monotonic() - begun - _SETTLE >= patience:
            return seen
        time.sleep(_SETTLE / 3)


def _counted_again(admin: Admin, seen: EnvoyLook) -> EnvoyLook:
    if seen.error:
        return seen
    try:
        statistics = admin.statistics()
    except CtlError:
        return seen
    clusters = [replace(one, then=statistics.get(one.name, one.then)) for one in seen.clusters]
    return replace(seen, clusters=clusters)
