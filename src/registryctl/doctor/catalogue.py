"""Catalogue of the checks that a client makes by itself; the registry's own are in the verdict that it serves."""

from msgspec import Struct

PAGE = "docs/checks.md"


class CheckDescription(Struct, frozen=True):
    """Description of one check.

    Attributes:
        id: the name of the check, which is also its anchor in docs/checks.md.
        category: the title under which its finding is printed.
        holds: the headline of a check that passes: a sentence that is true then.
    """

    id: str
    category: str
    holds: str


CHECKS = {
    check.id: check
    for check in (
        CheckDescription("registry-reachable", "registry", "every address of the registry answers"),
        CheckDescription("registry-version", "registry", "registry and registryctl are of one version"),
        # These three are rules of the registry, too. A client adds what the registry does not know or may not answer.
        CheckDescription("registry-ready", "registry", "every process that answers is ready for discovery"),
        CheckDescription("check-allowed", "access", "everything that is checked may be read"),
        CheckDescription("tokens-encrypted", "access", "no token is sent over plain HTTP"),
        CheckDescription("replicas-one-database", "replicas", "all addresses are one registry"),
        CheckDescription("replicas-agree", "replicas", "all addresses serve the same versions"),
        CheckDescription("clock-registry", "clocks", "the registry's clock agrees with this machine's"),
        CheckDescription("envoy-reachable", "envoy", "Envoy's admin interface answers"),
        CheckDescription("envoy-live", "envoy", "Envoy is live"),
        CheckDescription("envoy-polls", "envoy", "Envoy has EDS clusters that poll or stream"),
        CheckDescription("envoy-rejects-nothing", "envoy", "Envoy has rejected no answer"),
        CheckDescription("envoy-polls-succeed", "envoy", "Envoy's polls and streams succeed"),
        CheckDescription("envoy-current", "envoy", "Envoy holds the newest versions"),
        CheckDescription("envoy-host-removal", "envoy", "Envoy's clusters forget endpoints that are removed"),
        CheckDescription("envoy-refresh", "envoy", "Envoy polls at a good pace, and lets polls be held"),
        CheckDescription("envoy-no-panic", "envoy", "no cluster of Envoy is in panic mode"),
        CheckDescription("envoy-shares", "envoy", "Envoy's clusters keep to the shares of traffic"),
        CheckDescription("envoy-edge", "envoy", "the edge that Envoy polls first answers it"),
    )
}
"""Every check by its id, in the order of the report."""


def link_of(check: str) -> str:
    """Return where a check is explained, and what to do when it does not pass."""
    return f"{PAGE}#{check}"
