"""Observer of every part of the system: once, and a second time where one moment says too little."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.metadata import version

from msgspec.structs import replace

from registryctl.addresses import ProcessAddress, addresses_of
from registryctl.client import NO_ANSWER, ApiClient, read
from registryctl.doctor.checks.envoy import MAX_REFUSAL_INTERVAL, delay_of, is_behind, may_be_refused
from registryctl.doctor.envoy_admin import EnvoyAdmin
from registryctl.doctor.evidence import Document, EnvoyEvidence, Evidence, RegistryEvidence
from registryctl.errors import CtlError, MissingError, RejectedError
from registryctl.paths import path_of
from registryctl.redaction import redact_text
from registryctl.settings import Settings
from wire.address import is_exposed

SETTLE_INTERVAL = 1.5
"""Seconds between two observations of a counter or a version."""

MAX_ENVOY_LAG = 15.0
"""Seconds that an Envoy is given to take what has just changed, at the most."""

LAPSES_WITHIN = 600.0
"""Seconds back for which a lapsed lease of a removed endpoint is still reported."""

MAX_LAPSES = 100
"""Events of lapsed leases that are read, the newest first."""


class Observer:
    """Observer of the registry at every address, and of the Envoys that are named.

    Args:
        settings: where to ask, and how long to wait.
        envoys: URLs of admin interfaces.
    """

    def __init__(self, settings: Settings, envoys: Sequence[str]) -> None:
        self._settings = settings
        self._envoys = envoys

    def observe(self) -> Evidence:
        """Return everything that could be observed now."""
        with ExitStack() as opened:
            clients = [
                opened.enter_context(closing(self._client(url, address)))
                for url in self._settings.urls
                for address in addresses_of(url)
            ]
            admins = [opened.enter_context(closing(EnvoyAdmin(url, self._settings.timeout))) for url in self._envoys]
            begun = time.monotonic()
            envoys = [admin.observe() for admin in admins]
            exposed = [redact_text(url) for url in self._settings.tokens if is_exposed(url)]
            registries = [_observe_registry(client) for client in clients]
            registries = _compare(clients, registries)
            evidence = Evidence(version("headcount"), registries, envoys=envoys, exposed=exposed)
            for client, registry in zip(clients, registries, strict=True):
                if registry.services is not None:
                    evidence = _complete(evidence, client)
                    break
            return replace(evidence, envoys=_observe_envoys_again(admins, evidence, begun))

    def _client(self, url: str, address: ProcessAddress) -> ApiClient:
        """Return a client of one address behind a URL, with the token of that URL."""
        token = self._settings.tokens.get(url)
        tokens = {} if token is None else {address.url: token}
        return ApiClient(replace(self._settings, urls=(address.url,), tokens=tokens), address.name)


def _observe_registry(client: ApiClient) -> RegistryEvidence:
    registry = RegistryEvidence(client.shown)
    refused: list[tuple[str, str]] = []
    try:
        client.ask("GET", "/livez")
        with _noting_refusals(refused):
            registry = replace(registry, ready=client.readiness())
        if registry.ready is None:
            # Anybody may ask whether a process is ready, but not why it is not.
            registry = replace(registry, ready=client.readiness(verbose=False))
        with _noting_refusals(refused):
            registry = replace(registry, version=read(client.get("/version")))
        with _noting_refusals(refused):
            registry = _observe_state(client, registry)
        if registry.ready is not None and registry.ready["ready"]:
            with _noting_refusals(refused):
                services = [read(service) for service in client.pages("/v1/services", "services")]
                registry = replace(registry, services=services)
        return replace(registry, refused=refused)
    except CtlError as error:
        if registry.ready is None:
            return replace(registry, error=str(error).removeprefix(f"{NO_ANSWER}{client.shown}: "))
    return replace(registry, refused=refused)


def _observe_state(client: ApiClient, registry: RegistryEvidence) -> RegistryEvidence:
    before, begun = time.time(), time.monotonic()
    state = _optional(client, "/v1/state")
    took = time.monotonic() - begun
    return replace(registry, state=state, asked_at=before + took / 2, took=took)


@contextmanager
def _noting_refusals(refused: list[tuple[str, str]]) -> Iterator[None]:
    """Go on without what the registry refuses to tell, and note what it says."""
    try:
        yield
    except RejectedError as error:
        refused.append((str(error), error.fix))


def _optional(client: ApiClient, path: str) -> Document | None:
    """Return a document, or None from a registry of before there was one."""
    try:
        return read(client.get(path))
    except MissingError:
        return None


def _compare(clients: Sequence[ApiClient], registries: list[RegistryEvidence]) -> list[RegistryEvidence]:
    """Observe addresses that do not agree again, a while later: a change takes its time between processes."""
    versions = [registry.versions() for registry in registries if registry.services is not None]
    if all(each == versions[0] for each in versions[1:]):
        return registries
    time.sleep(SETTLE_INTERVAL)
    compared = []
    for client, registry in zip(clients, registries, strict=True):
        again = _observe_registry(client) if registry.services is not None else registry
        compared.append(replace(registry, later=again.versions()) if again.services is not None else registry)
    return compared


def _complete(evidence: Evidence, client: ApiClient) -> Evidence:
    """Add what one address reports of the whole; a document that it cannot give now is left out."""
    with suppress(CtlError):
        evidence = replace(evidence, expiry=read(client.get("/v1/expiry")))
    with suppress(CtlError):
        subscribers = [read(subscriber) for subscriber in client.pages("/v1/subscribers", "subscribers")]
        page = read(client.get("/v1/subscribers", {"limit": 1}))
        # A registry of before there was a limit does not name it.
        refused_ago = page.get("refused_ago")
        evidence = replace(evidence, subscribers=subscribers, complete=bool(page["complete"]), refused_ago=refused_ago)
    with suppress(CtlError):
        evidence = replace(evidence, readable=_readable(read(client.get("/v1/whoami"))))
    with suppress(CtlError):
        evidence = replace(evidence, silent=_silent(evidence, client))
    return evidence


def _readable(whoami: Document) -> list[str] | None:
    """Return the services that lists are limited to; None: they have all."""
    services = [service for grant in whoami["grants"] if "read" in grant["verbs"] for service in grant["services"]]
    return sorted(set(services)) if whoami["mode"] == "on" and services and "*" not in services else None


def _silent(evidence: Evidence, client: ApiClient) -> list[Document]:
    """Return the endpoints whose lease has lapsed: the listed ones, then those that were removed since."""
    names = [service["name"] for service in evidence.services or () if service["statuses"].get("TIMEOUT")]
    silent = [
        endpoint | {"at": endpoint["lapsed_at"] or client.now, "listed": True}
        for name in names
        for endpoint in map(read, client.pages(path_of(name, rest="/endpoints"), "endpoints", {"status": "TIMEOUT"}))
    ]
    named = {(endpoint["service"], endpoint["endpoint"]) for endpoint in silent}
    params = {"kind": "lapsed", "since": client.now - LAPSES_WITHIN}
    try:
        lapses = [read(event) for event in client.pages("/v1/events", "events", params, limit=MAX_LAPSES)]
    except CtlError:
        return silent
    for lapse in lapses:
        key = (lapse["service"], lapse["endpoint"])
        if key not in named and _is_gone(client, *key):
            silent.append(lapse | {"listed": False})
        named.add(key)
    return silent


def _is_gone(client: ApiClient, service: str, endpoint: str) -> bool:
    try:
        client.get(path_of(service, endpoint))
    except MissingError:
        return True
    return False


def _observe_envoys_again(admins: Sequence[EnvoyAdmin], evidence: Evidence, begun: float) -> list[EnvoyEvidence]:
    """Read counters a second time, and once more as long as an Envoy may still be taking a new version."""
    envoys = list(evidence.envoys)
    if not any(envoy.clusters for envoy in envoys):
        return envoys
    time.sleep(max(0.0, begun + SETTLE_INTERVAL - time.monotonic()))
    while True:
        envoys = [_observe_counters(admin, envoy) for admin, envoy in zip(admins, envoys, strict=True)]
        lagging = [
            cluster
            for envoy in envoys
            for cluster in envoy.clusters
            if is_behind(cluster, evidence) and not cluster.then.get("update_rejected")
        ]
        timeout = min(MAX_ENVOY_LAG, max((2 * delay_of(cluster.config) + 1 for cluster in lagging), default=0.0))
        if any(map(may_be_refused, envoys)):
            timeout = max(timeout, MAX_REFUSAL_INTERVAL)
        if time.monotonic() - begun - SETTLE_INTERVAL >= timeout:
            return envoys
        time.sleep(SETTLE_INTERVAL / 3)


def _observe_counters(admin: EnvoyAdmin, envoy: EnvoyEvidence) -> EnvoyEvidence:
    if envoy.error:
        return envoy
    try:
        statistics = admin.statistics()
    except CtlError:
        return envoy
    clusters = [replace(cluster, then=statistics.get(cluster.name, cluster.then)) for cluster in envoy.clusters]
    return replace(envoy, clusters=clusters, then=statistics)
