"""Whether the registry answers, is ready, and is of this command's version."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Look
from registryctl.doctor.finding import Finding, Mark, judged, skipped


def judge(look: Look) -> Iterator[Finding]:
    """Yield the findings of the category."""
    answering = look.answering
    fact = ", ".join(one.url for one in answering)
    yield judged("registry-reachable", (f"{one.url}: {one.error}" for one in look.registries if one.error), fact)
    if not answering:
        yield skipped("registry-ready", "no registry answers")
        yield skipped("registry-version", "no registry answers")
        return
    yield judged("registry-ready", (f"{one.url}: {_unready(one.ready)}" for one in answering if not _ready(one.ready)))
    versions = {one.url: one.version["version"] for one in answering if one.version is not None}
    troubles = [
        f"{url} runs {told}, registryctl is {look.version}" for url, told in versions.items() if told != look.version
    ]
    yield judged("registry-version", troubles, look.version, Mark.WARNING)


def _ready(told: dict[str, object] | None) -> bool:
    return told is not None and told["ready"] is True


def _unready(told: dict[str, object] | None) -> str:
    parts = told.get("parts") if told is not None else None
    found = (
        [f"{part['name']}: {part['detail']}" for part in parts or () if not part["ok"]]
        if isinstance(parts, list)
        else []
    )
    return f"not ready; {', '.join(found)}" if found else "not ready; it stops, or has not read the state yet"
