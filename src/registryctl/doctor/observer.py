"""Observer of every part of the system: once, and a second time where one moment says too little."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.metadata import version

import msgspec
from msgspec.structs import replace

from registryctl.addresses import ProcessAddress, addresses_of
from registryctl.client import NO_ANSWER, ApiClient, read
from registryctl.doctor.checks.envoy import MAX_REFUSAL_INTERVAL, delay_of, is_behind, may_be_refused
from registryctl.doctor.envoy_admin import EnvoyAdmin
from registryctl.doctor.evidence import EnvoyEvidence, Evidence, RegistryEvidence, ServedVerdict
from registryctl.errors import CtlError, MissingError, RejectedError, UnreachableError
from registryctl.redaction import redact_text
from registryctl.settings import Settings
from wire.address import is_exposed

SETTLE_INTERVAL = 1.5
"""Seconds between two observations of a counter or a version."""

MAX_ENVOY_LAG = 15.0
"""Seconds that an Envoy is given to take what has just changed, at the most."""


class Observer:
    """Observer of the registry at every address, and of the Envoys that are named.

    Args:
        settings: where to ask, and how long to wait.
        envoys: URLs of admin interfaces.
        suspects: the number of silent endpoints that are allowed.
    """

    def __init__(self, settings: Settings, envoys: Sequence[str], suspects: int = 0) -> None:
        self._settings = settings
        self._envoys = envoys
        self._suspects = suspects

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
            # Versions are compared between addresses, and with what Envoys hold.
            listed = len(clients) + len(admins) > 1
            registries = [_observe_registry(client, self._suspects, listed=listed) for client in clients]
            registries = _compare(clients, registries)
            evidence = Evidence(version("headcount"), registries, envoys, exposed)
            return replace(evidence, envoys=_observe_envoys_again(admins, evidence, begun))

    def _client(self, url: str, address: ProcessAddress) -> ApiClient:
        """Return a client of one address behind a URL, with the token of that URL."""
        token = self._settings.tokens.get(url)
        tokens = {} if token is None else {address.url: token}
        return ApiClient(replace(self._settings, urls=(address.url,), tokens=tokens), address.name)


def _observe_registry(client: ApiClient, suspects: int, *, listed: bool) -> RegistryEvidence:
    registry = RegistryEvidence(client.shown)
    refused: list[tuple[str, str]] = []
    try:
        client.text("/livez")
        with _noting_refusals(refused):
            registry = _observe_verdict(client, registry, suspects)
        if registry.verdict is None:
            # Anybody may ask whether a process is ready.
            registry = replace(registry, ready=bool(client.readiness(verbose=False)["ready"]))
        if listed or refused:
            # All that is refused is named at once.
            registry = _observe_services(client, registry, refused)
    except CtlError as error:
        return replace(registry, error=str(error).removeprefix(f"{NO_ANSWER}{client.shown}: "))
    return replace(registry, refused=refused)


def _observe_verdict(client: ApiClient, registry: RegistryEvidence, suspects: int) -> RegistryEvidence:
    before, begun = time.time(), time.monotonic()
    try:
        served = client.get("/v1/verdict", {"suspects": suspects or None})
    except MissingError:
        return replace(registry, outdated=_version_of(client))
    took = time.monotonic() - begun
    verdict = msgspec.json.decode(served, type=ServedVerdict)
    return replace(registry, verdict=verdict, asked_at=before + took / 2, took=took)


def _version_of(client: ApiClient) -> str:
    """Return the version of a registry that has no verdict to give."""
    try:
        return str(read(client.get("/version"))["version"])
    except CtlError:
        return "an earlier version"


def _observe_services(
    client: ApiClient, registry: RegistryEvidence, refused: list[tuple[str, str]]
) -> RegistryEvidence:
    """Add the services; a process that is not ready has none to compare."""
    with suppress(UnreachableError), _noting_refusals(refused):
        listed = read(client.whole("/v1/services", "services"))
        registry = replace(registry, services=listed["services"], unreadable=listed.get("unavailable", ()))
    return registry


@contextmanager
def _noting_refusals(refused: list[tuple[str, str]]) -> Iterator[None]:
    """Go on without what the registry refuses to tell, and note what it says."""
    try:
        yield
    except RejectedError as error:
        refused.append((str(error), error.fix))


def _compare(clients: Sequence[ApiClient], registries: list[RegistryEvidence]) -> list[RegistryEvidence]:
    """Observe addresses that do not agree again, a while later: a change takes its time between processes."""
    versions = [registry.versions() for registry in registries if registry.services is not None]
    if all(each == versions[0] for each in versions[1:]):
        return registries
    time.sleep(SETTLE_INTERVAL)
    compared = []
    for client, registry in zip(clients, registries, strict=True):
        again = registry if registry.services is None else _observe_services(client, registry, [])
        if again.services is not None:
            # What could not be read before may be readable meanwhile.
            compared.append(replace(registry, later=again.versions(), unreadable=again.unreadable))
        else:
            compared.append(registry)
    return compared


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
