"""Whether one Envoy, asked itself, takes and keeps what the registry says."""

from collections.abc import Iterator, Mapping, Sequence

from registryctl.doctor.evidence import ClusterLook, Document, EnvoyLook, Look
from registryctl.doctor.finding import Finding, Mark, judged, skipped
from wire.duration import parse_duration

_SHORTEST_DELAY = 0.01
"""Envoy 1.40 crashes below a millisecond, and polls in a loop a little above."""
_LONGEST_DELAY = 5.0
"""Polls come every one to two delays; a drain waits for two of five seconds, by default."""
_SHORTEST_TIMEOUT = 5.0
"""A poll is held for almost this long, so Envoy's default of one second means a poll of 77 kB a second."""
_DEFAULT_TIMEOUT = 1.0
_DEFAULT_PANIC = 50.0
_NEEDED = (
    "envoy-live",
    "envoy-polls",
    "envoy-rejects-nothing",
    "envoy-polls-succeed",
    "envoy-current",
    "envoy-host-removal",
    "envoy-refresh",
    "envoy-no-panic",
)


def judge(look: Look) -> Iterator[Finding]:
    """Yield the findings of each Envoy."""
    database, versions = _truth(look)
    for envoy in look.envoys:
        yield from _judge_one(envoy, database, versions)


def _truth(look: Look) -> tuple[str, Mapping[str, int] | None]:
    """Return the database and the versions that Envoys should hold; None: no registry is ready to say."""
    for one in look.answering:
        if one.services is not None and one.state is not None:
            return one.state["database_id"], one.versions()
    return "", None


def _judge_one(envoy: EnvoyLook, database: str, versions: Mapping[str, int] | None) -> Iterator[Finding]:
    url = envoy.url
    yield judged("envoy-reachable", [envoy.error] if envoy.error else [], envoy.version, subject=url)
    if envoy.error:
        for check in _NEEDED:
            yield skipped(check, "its admin interface does not answer", url)
        return
    yield judged("envoy-live", [] if envoy.live == "LIVE" else [f"it is {envoy.live}"], subject=url)
    polling = [one for one in envoy.clusters if is_rest(one.config)]
    troubles = [] if polling else [f"none of its {len(envoy.clusters)} EDS clusters polls by REST"]
    names = ", ".join(sorted(one.name for one in polling))
    yield judged("envoy-polls", troubles, names, Mark.WARNING, url)
    yield _rejections(polling, versions, database, url)
    failing = (f"{one.name}: {_failures(one)}" for one in polling if _grown(one, "update_failure"))
    yield judged("envoy-polls-succeed", failing, subject=url)
    yield _currency(polling, versions, database, url)
    yield _removal(envoy.clusters, url)
    paces = [said for one in polling for said in _pace(one)]
    mark = Mark.FAILURE if any(fatal for fatal, _ in paces) else Mark.WARNING
    yield judged("envoy-refresh", (said for _, said in paces), "", mark, url)
    yield judged("envoy-no-panic", (said for one in envoy.clusters if (said := _panic(one))), subject=url)


def _rejections(polling: list[ClusterLook], versions: Mapping[str, int] | None, database: str, url: str) -> Finding:
    """A rejection that Envoy has got over is a warning: there was an answer that it could not take."""
    rejecting = [one for one in polling if one.then.get("update_rejected", 0)]
    now = [one for one in rejecting if _grown(one, "update_rejected") or _lag(one, versions or {}, database)]
    past = [one for one in rejecting if one not in now]
    if now:
        said = [
            f"{one.name}: rejected {one.then['update_rejected']} answers and keeps what it had; its log says why"
            for one in now
        ]
        return judged("envoy-rejects-nothing", said, subject=url)
    told = (
        f"{one.name}: rejected {one.then['update_rejected']} answers since its start, and takes them now"
        for one in past
    )
    return judged("envoy-rejects-nothing", told, "", Mark.WARNING, url)


def _currency(polling: list[ClusterLook], versions: Mapping[str, int] | None, database: str, url: str) -> Finding:
    if versions is None:
        return skipped("envoy-current", "no registry says which versions are the newest", url)
    troubles = [f"{one.name}: {said}" for one in polling if (said := _lag(one, versions, database))]
    return judged("envoy-current", troubles, subject=url)


def _lag(one: ClusterLook, versions: Mapping[str, int], database: str) -> str:
    """Say how what a cluster holds differs from what is served; empty: it does not, or nothing is served."""
    newest = versions.get(one.service)
    if newest is None:
        return ""
    held = str(one.then.get("version_text") or "")
    held_database, _, held_version = held.rpartition(":")
    if not held:
        return f"it has taken no answer yet; {one.service} is at version {newest}"
    if held_database != database:
        return f"it holds {held}, which is none of this registry's versions ({database}:{newest})"
    behind = not held_version.isdigit() or int(held_version) < newest
    return f"it holds version {held_version}, the registry serves {newest}" if behind else ""


def _removal(clusters: Sequence[ClusterLook], url: str) -> Finding:
    careless = [one for one in clusters if not one.config.get("ignore_health_on_host_removal")]
    harmful = [one for one in careless if one.config.get("health_checks")]
    said = [
        f"{one.name}: ignore_health_on_host_removal is not set, "
        + (
            "and its active health checks keep removed endpoints in use"
            if one in harmful
            else "which active health checks would need"
        )
        for one in careless
    ]
    return judged("envoy-host-removal", said, "", Mark.FAILURE if harmful else Mark.WARNING, url)


def _pace(one: ClusterLook) -> Iterator[tuple[bool, str]]:
    """Yield what is wrong with how a cluster polls, and whether it breaks anything."""
    source = _source(one.config)
    delay = delay_of(one.config)
    timeout = _seconds(source.get("request_timeout"), _DEFAULT_TIMEOUT)
    if delay < _SHORTEST_DELAY:
        yield (
            True,
            f"{one.name}: refresh_delay of {1000 * delay:g} ms makes Envoy poll in a loop, or crash; 0.2s is good",
        )
    if delay > _LONGEST_DELAY:
        yield (
            False,
            f"{one.name}: refresh_delay of {delay:g} s: changes take up to {2 * delay:g} s, longer than a drain waits",
        )
    if timeout < _SHORTEST_TIMEOUT:
        yield False, f"{one.name}: request_timeout of {timeout:g} s is too short for polls to be held; 30s is good"


def _panic(one: ClusterLook) -> str:
    total = one.then.get("membership_total", 0) - one.then.get("membership_excluded", 0)
    well = one.then.get("membership_healthy", 0) + one.then.get("membership_degraded", 0)
    told = one.config.get("common_lb_config", {}).get("healthy_panic_threshold", {})
    threshold = float(told.get("value", 0.0)) if told else _DEFAULT_PANIC
    if total <= 0 or 100 * well / total >= threshold:
        return ""
    return f"{one.name}: {well} of {total} endpoints are well, so Envoy sends to all of them"


def _failures(one: ClusterLook) -> str:
    return f"{one.then['update_failure']} polls failed since its start, the last just now; its log says why"


def _grown(one: ClusterLook, counter: str) -> bool:
    return bool(one.then.get(counter, 0) > one.first.get(counter, 0))


def is_behind(one: ClusterLook, look: Look) -> bool:
    """Tell whether a cluster does not hold what the registry serves."""
    database, versions = _truth(look)
    return is_rest(one.config) and versions is not None and bool(_lag(one, versions, database))


def delay_of(config: Document) -> float:
    """Return the seconds that a cluster waits at least between an answer and its next poll."""
    return _seconds(_source(config).get("refresh_delay"), 0.0)


def is_rest(config: Document) -> bool:
    """Tell whether an EDS cluster polls by REST."""
    return _source(config).get("api_type") == "REST"


def _source(config: Document) -> Document:
    source: Document = config.get("eds_cluster_config", {}).get("eds_config", {}).get("api_config_source", {})
    return source


def _seconds(told: object, otherwise: float) -> float:
    return parse_duration(told) if isinstance(told, str) else otherwise
