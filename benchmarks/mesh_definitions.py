"""A mesh of five hundred services that call twenty others each, as files of a repository."""

from collections.abc import Iterator

from meshconfig.effective import Configuration
from meshconfig.repository import Cache, read
from meshconfig.resource import Catalog, Snapshot
from meshconfig.snapshot import compile_mesh

CALLERS = 500
DEPENDENCIES = 20

_MESH = """\
environment: bench
defaults:
  timeout: 5s
  retry: {attempts: 3, per_try_timeout: 1s}
"""
_STRIDE = 23
"""The distance of a caller's dependencies; it shares no factor with the number of services."""
_KINDS = 4


def files(*, first: str = "", every: str = "") -> dict[str, str]:
    """Return the text of each file by its path, with further lines of the first service's file and of every one."""
    texts = {f"services/{name(number)}.yaml": _service(number) + every for number in range(CALLERS)}
    texts[f"services/{name(0)}.yaml"] += first
    return {"mesh.yaml": _MESH, **texts}


def configuration_of(texts: dict[str, str], cache: Cache | None = None) -> Configuration:
    """Return the configuration that files define.

    Raises:
        RuntimeError: they have faults.
    """
    configuration, faults = read(texts, cache=cache)
    if configuration is None:
        raise RuntimeError(f"the definitions have faults: {faults[:3]}")
    return configuration


def compiled(texts: dict[str, str]) -> Snapshot:
    """Return what files compile to."""
    return compile_mesh(configuration_of(texts), Catalog())


def name(number: int) -> str:
    """Return the name of a service."""
    return f"svc-{number % CALLERS:03d}"


def _service(number: int) -> str:
    lines = ["provides: {protocol: http1, defaults: {timeout: 3s}}", "dependencies:", *_dependencies(number)]
    return "\n".join(lines) + "\n"


def _dependencies(number: int) -> Iterator[str]:
    """Yield the lines of a service's dependencies: half are plain, the others differ from caller to caller."""
    for index in range(DEPENDENCIES):
        yield f"- service: {name(number + _STRIDE * (index + 1))}"
        kind = index % _KINDS
        if kind == 0:
            yield "  circuit_breaker: {connections: 64, pending_requests: 128}"
            yield f"  retry: {{attempts: 3, per_try_timeout: {200 + number}ms, when: [5xx, connect-failure]}}"
        elif kind == 1:
            yield f"  headers: {{set: {{x-caller: {name(number)}}}}}"
            yield "  outlier_detection: {consecutive_5xx: 5, interval: 2s}"
