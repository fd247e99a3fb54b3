"""Checks whether one Envoy, by its own admin interface, takes and keeps what the registry serves."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from registryctl.doctor.evidence import ClusterEvidence, Document, EnvoyEvidence, Evidence
from registryctl.doctor.finding import conclude, skipped
from wire.duration import parse_duration
from wire.finding import Finding, FindingStatus, counted

MIN_REFRESH_DELAY = 0.01
"""Seconds; Envoy 1.40 crashes below a millisecond, and polls in a loop a little above."""
MAX_REFRESH_DELAY = 5.0
"""Seconds; polls come every one to two delays, and a drain waits for two of five seconds, by default."""
MIN_REQUEST_TIMEOUT = 5.0
"""Seconds; a poll is held for almost this long, so Envoy's default of one second means a poll of 77 kB a second."""
DEFAULT_REQUEST_TIMEOUT = 1.0
"""Seconds that Envoy waits for an answer when nothing is configured."""
MAX_REFUSAL_INTERVAL = 3.0
"""Seconds between two refused polls of an Envoy at most: the registry holds them for two, and Envoy pauses."""
DEFAULT_PANIC_THRESHOLD = 50.0
"""Percent of healthy hosts below which Envoy panics when nothing is configured."""

_NEEDED = (
    "envoy-live",
    "envoy-polls",
    "envoy-rejects-nothing",
    "envoy-polls-succeed",
    "envoy-current",
    "envoy-host-removal",
    "envoy-refresh",
    "envoy-no-panic",
    "envoy-shares",
    "envoy-edge",
)
"""The checks that need an answer of the admin interface."""

_REFUSALS = {
    401: "they bring no token, or one that is not accepted; see its file, like /run/envoy-token/token",
    403: "the grants of its token do not allow to discover every service that it asks for",
}
"""The cause of each status of a poll that access control refuses."""

Served = Mapping[str, int] | None
"""The version of each service that Envoys should hold; None: no registry is ready to say."""


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of each Envoy."""
    database, served = _served(evidence)
    shared = {
        service["name"]
        for registry in evidence.answering
        for service in registry.services or ()
        if service.get("shared_groups")
    }
    for envoy in evidence.envoys:
        yield from _evaluate_envoy(envoy, database, served, shared)


def _served(evidence: Evidence) -> tuple[str, Served]:
    """Return the database and the versions that Envoys should hold."""
    for registry in evidence.answering:
        if registry.services is not None and registry.verdict is not None:
            return registry.verdict.database_id, registry.versions()
    return "", None


def _evaluate_envoy(envoy: EnvoyEvidence, database: str, served: Served, shared: Collection[str]) -> Iterator[Finding]:
    url = envoy.url
    troubles = [envoy.error] if envoy.error else []
    headline = "no Envoy answers at this address of an admin interface"
    yield conclude("envoy-reachable", headline, troubles, fact=envoy.version, subject=url)
    if envoy.error:
        for check in _NEEDED:
            yield skipped(check, "its admin interface does not answer", url)
        return
    troubles = [] if envoy.live == "LIVE" else [f"it is {envoy.live}"]
    yield conclude("envoy-live", "Envoy is not live", troubles, subject=url)
    polling = [cluster for cluster in envoy.clusters if is_rest(cluster.config)]
    subscribed = [cluster for cluster in envoy.clusters if is_rest(cluster.config) or _streams(cluster.config)]
    yield conclude(
        "envoy-polls",
        "Envoy has no EDS cluster that polls by REST or streams by gRPC",
        [] if subscribed else [f"none of its {len(envoy.clusters)} EDS clusters polls by REST or streams by gRPC"],
        status=FindingStatus.WARNING,
        fact=", ".join(sorted(cluster.name for cluster in subscribed)),
        subject=url,
    )
    yield _rejections(subscribed, served, database, url)
    failing = [
        f"{cluster.name}: {_failures(cluster, envoy)}" for cluster in subscribed if _grown(cluster, "update_failure")
    ]
    headline = _of_clusters(failing, "Envoy's subscriptions of {} fail")
    yield conclude("envoy-polls-succeed", headline, failing, subject=url)
    yield _currency(polling, subscribed, served, database, url)
    yield _removal(envoy.clusters, url)
    yield _polling(polling, url)
    panicking = [text for cluster in envoy.clusters if (text := _panic(cluster))]
    headline = counted(len(panicking), "cluster of Envoy is in panic mode", "clusters of Envoy are in panic mode")
    yield conclude("envoy-no-panic", headline, panicking, subject=url)
    yield _balancing(subscribed, shared, url)
    yield _edge(polling, envoy)


def _rejections(polling: list[ClusterEvidence], served: Served, database: str, url: str) -> Finding:
    """Check for rejected answers; a rejection that Envoy has got over is a warning."""
    rejecting = [cluster for cluster in polling if cluster.then.get("update_rejected", 0)]
    now = [
        cluster for cluster in rejecting if _grown(cluster, "update_rejected") or _lag(cluster, served or {}, database)
    ]
    if now:
        troubles = [
            f"{cluster.name}: rejected {cluster.then['update_rejected']} answers and keeps what it had; "
            "its log says why"
            for cluster in now
        ]
        return conclude("envoy-rejects-nothing", "Envoy rejects answers", troubles, subject=url)
    troubles = [
        f"{cluster.name}: rejected {cluster.then['update_rejected']} answers since its start, and takes them now"
        for cluster in rejecting
    ]
    headline = "Envoy rejected answers, and takes them now"
    return conclude("envoy-rejects-nothing", headline, troubles, status=FindingStatus.WARNING, subject=url)


def _currency(
    polling: list[ClusterEvidence], subscribed: list[ClusterEvidence], served: Served, database: str, url: str
) -> Finding:
    if subscribed and not polling:
        # Over delta an Envoy names no version by itself.
        return skipped("envoy-current", "it streams, and acknowledges: see what `registryctl subscribers` says", url)
    if served is None:
        return skipped("envoy-current", "no registry says which versions are the newest", url)
    troubles = [f"{cluster.name}: {text}" for cluster in polling if (text := _lag(cluster, served, database))]
    headline = _of_clusters(troubles, "Envoy does not hold the newest version of {}")
    return conclude("envoy-current", headline, troubles, subject=url)


def _lag(cluster: ClusterEvidence, served: Mapping[str, int], database: str) -> str:
    """Return how what a cluster holds differs from what is served; empty: it does not, or nothing is served."""
    newest = served.get(cluster.service)
    if newest is None:
        return ""
    held = str(cluster.then.get("version_text") or "")
    held_database, _, held_version = held.rpartition(":")
    if not held:
        return f"it has taken no answer yet; {cluster.service} is at version {newest}"
    if held_database != database:
        return f"it holds {held}, which is none of this registry's versions ({database}:{newest})"
    behind = not held_version.isdigit() or int(held_version) < newest
    return f"it holds version {held_version}, the registry serves {newest}" if behind else ""


def _removal(clusters: Sequence[ClusterEvidence], url: str) -> Finding:
    careless = [cluster for cluster in clusters if not cluster.config.get("ignore_health_on_host_removal")]
    harmful = [cluster for cluster in careless if cluster.config.get("health_checks")]
    troubles = [
        f"{cluster.name}: ignore_health_on_host_removal is not set, "
        + (
            "and its active health checks keep removed endpoints in use"
            if cluster in harmful
            else "which active health checks would need"
        )
        for cluster in careless
    ]
    headline = (
        counted(len(harmful), "cluster of Envoy keeps removed endpoints", "clusters of Envoy keep removed endpoints")
        if harmful
        else _of_clusters(careless, "active health checks would keep removed endpoints in {}")
    )
    status = FindingStatus.FAILURE if harmful else FindingStatus.WARNING
    return conclude("envoy-host-removal", headline, troubles, status=status, subject=url)


def _polling(polling: Sequence[ClusterEvidence], url: str) -> Finding:
    troubles = [trouble for cluster in polling for trouble in _polling_troubles(cluster)]
    fatal = any(breaks for breaks, _ in troubles)
    return conclude(
        "envoy-refresh",
        "Envoy polls in a loop, or crashes" if fatal else "Envoy polls too seldom, or lets no poll be held",
        [text for _, text in troubles],
        status=FindingStatus.FAILURE if fatal else FindingStatus.WARNING,
        subject=url,
    )


def _polling_troubles(cluster: ClusterEvidence) -> Iterator[tuple[bool, str]]:
    """Yield what is wrong with how a cluster polls, and whether it breaks anything."""
    source = _source(cluster.config)
    delay = delay_of(cluster.config)
    timeout = _seconds(source.get("request_timeout"), DEFAULT_REQUEST_TIMEOUT)
    if delay < MIN_REFRESH_DELAY:
        text = f"refresh_delay of {1000 * delay:g} ms makes Envoy poll in a loop, or crash; 0.2s is good"
        yield True, f"{cluster.name}: {text}"
    if delay > MAX_REFRESH_DELAY:
        text = f"refresh_delay of {delay:g} s: changes take up to {2 * delay:g} s, longer than a drain waits"
        yield False, f"{cluster.name}: {text}"
    if timeout < MIN_REQUEST_TIMEOUT:
        text = f"request_timeout of {timeout:g} s is too short for polls to be held; 30s is good"
        yield False, f"{cluster.name}: {text}"


def _panic(cluster: ClusterEvidence) -> str:
    total = cluster.then.get("membership_total", 0) - cluster.then.get("membership_excluded", 0)
    well = cluster.then.get("membership_healthy", 0) + cluster.then.get("membership_degraded", 0)
    percent = cluster.config.get("common_lb_config", {}).get("healthy_panic_threshold", {})
    threshold = float(percent.get("value", 0.0)) if percent else DEFAULT_PANIC_THRESHOLD
    if total <= 0 or 100 * well / total >= threshold:
        return ""
    return f"{cluster.name}: {well} of {total} endpoints are well, so Envoy sends to all of them"


def _failures(cluster: ClusterEvidence, envoy: EnvoyEvidence) -> str:
    what = "polls failed" if is_rest(cluster.config) else "attempts to stream failed"
    return f"{cluster.then['update_failure']} {what} since its start, the last just now; {_cause(cluster, envoy)}"


def _cause(cluster: ClusterEvidence, envoy: EnvoyEvidence) -> str:
    """Return why polls fail, as far as the statistics of the registries' cluster tell."""
    polled = _source(cluster.config).get("cluster_names", ())
    for name in [each for aggregate in polled for each in (aggregate, *envoy.members.get(aggregate, ()))]:
        first, then = envoy.first.get(name, {}), envoy.then.get(name, {})
        for status, cause in _REFUSALS.items():
            counter = f"upstream_rq_{status}"
            if then.get(counter, 0) > first.get(counter, 0):
                return f"the registry refuses them ({status}): {cause}"
    return "its log says why"


def _edge(polling: Sequence[ClusterEvidence], envoy: EnvoyEvidence) -> Finding:
    """Check that the edge of a registrar answers, where polls go to one first."""
    polled = {name for cluster in polling for name in _source(cluster.config).get("cluster_names", ())}
    edges = sorted({members[0] for name, members in envoy.members.items() if name in polled})
    away = [
        f"{edge}: no healthy endpoint; run the registrar beside with REGISTRAR_EDGE_LISTEN, or see why its /livez fails"
        for edge in edges
        if not envoy.then.get(edge, {}).get("membership_healthy", 0)
    ]
    return conclude(
        "envoy-edge",
        "Envoy polls the registries itself, because no edge answers it",
        away,
        status=FindingStatus.WARNING,
        fact=", ".join(edges) or "none in its bootstrap: it polls the registries itself",
        subject=envoy.url,
    )


def may_be_refused(envoy: EnvoyEvidence) -> bool:
    """Return whether access control has refused polls, and none was seen to fail between the two looks."""
    refused = any(then.get(f"upstream_rq_{status}", 0) for then in envoy.then.values() for status in _REFUSALS)
    return refused and not any(_grown(cluster, "update_failure") for cluster in envoy.clusters)


def _grown(cluster: ClusterEvidence, counter: str) -> bool:
    return bool(cluster.then.get(counter, 0) > cluster.first.get(counter, 0))


def _of_clusters(troubles: Sequence[object], headline: str) -> str:
    return headline.format(counted(len(troubles), "cluster", "clusters"))


def is_behind(cluster: ClusterEvidence, evidence: Evidence) -> bool:
    """Return whether a cluster does not hold what the registry serves."""
    database, served = _served(evidence)
    return is_rest(cluster.config) and served is not None and bool(_lag(cluster, served, database))


def delay_of(config: Document) -> float:
    """Return the seconds that a cluster waits at least between an answer and its next poll."""
    return _seconds(_source(config).get("refresh_delay"), 0.0)


def is_rest(config: Document) -> bool:
    """Return whether an EDS cluster polls by REST."""
    return _source(config).get("api_type") == "REST"


def _streams(config: Document) -> bool:
    """Return whether an EDS cluster gets its endpoints over gRPC."""
    eds_config = config.get("eds_cluster_config", {}).get("eds_config", {})
    return "ads" in eds_config or _source(config).get("api_type") in {"GRPC", "DELTA_GRPC"}


def _balancing(subscribed: Sequence[ClusterEvidence], shared: Collection[str], url: str) -> Finding:
    """Check that clusters of services under a share balance by the weights that they are given."""
    bent = [
        f"{cluster.name}: {text}"
        for cluster in subscribed
        if cluster.service in shared and (text := _bends_shares(cluster.config))
    ]
    headline = _of_clusters(bent, "Envoy does not keep to the shares of traffic in {}")
    return conclude("envoy-shares", headline, bent, status=FindingStatus.WARNING, subject=url)


def _bends_shares(config: Document) -> str:
    """Return what in a cluster bends shares, which are kept by weights; empty: nothing."""
    policy = config.get("lb_policy", "ROUND_ROBIN")
    if policy == "RANDOM":
        return "lb_policy RANDOM ignores weights; ROUND_ROBIN keeps to them"
    options = config.get("least_request_lb_config", {})
    if policy == "LEAST_REQUEST" and options.get("active_request_bias", {}).get("default_value") != 0:
        return (
            "lb_policy LEAST_REQUEST gives small shares more under load; ROUND_ROBIN or active_request_bias 0 does not"
        )
    if any("slow_start_config" in config.get(name, {}) for name in _SLOW_STARTS):
        return "slow_start_config holds a new endpoint below its share for its window"
    if "zone_aware_lb_config" in config.get("common_lb_config", {}):
        return "zone_aware_lb_config keeps requests in their zone; a share is kept where each zone has endpoints of it"
    return ""


_SLOW_STARTS = ("round_robin_lb_config", "least_request_lb_config")
"""Fields of a cluster that may have a slow start."""


def _source(config: Document) -> Document:
    source: Document = config.get("eds_cluster_config", {}).get("eds_config", {}).get("api_config_source", {})
    return source


def _seconds(text: object, default: float) -> float:
    return parse_duration(text) if isinstance(text, str) else default
