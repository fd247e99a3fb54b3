"""Every check there is: its id, its category, and what holds when all is well. docs/checks.md explains each."""

from msgspec import Struct

PAGE = "docs/checks.md"


class Check(Struct, frozen=True):
    """One check; ``holds`` is what is true when it passes, as a sentence after a mark."""

    id: str
    category: str
    holds: str

    @property
    def link(self) -> str:
        """Where it is explained, and what to do."""
        return f"{PAGE}#{self.id}"


CHECKS = {
    one.id: one
    for one in (
        Check("registry-reachable", "registry", "every address answers"),
        Check("registry-ready", "registry", "every process is ready for discovery"),
        Check("registry-version", "registry", "registry and registryctl are of one version"),
        Check("postgresql-answers", "postgresql", "PostgreSQL answers"),
        Check("postgresql-writable", "postgresql", "PostgreSQL takes writes"),
        Check("postgresql-schema", "postgresql", "its schema is the one that the registry expects"),
        Check("history-kept", "postgresql", "no event is deleted before its retention is over"),
        Check("snapshot-fresh", "snapshot", "discovery is answered from what PostgreSQL says now"),
        Check("snapshot-on-disk", "snapshot", "the last state is kept on disk for a start without PostgreSQL"),
        Check("replicas-working", "replicas", "every process accepts connections and stores what it is told"),
        Check("replicas-one-database", "replicas", "all addresses are one registry"),
        Check("replicas-agree", "replicas", "all addresses serve the same versions"),
        Check("clock-registry", "clocks", "the registry's clock is that of this machine"),
        Check("clock-postgresql", "clocks", "PostgreSQL's clock is that of the registry"),
        Check("sweeper-leads", "expiry", "one process sweeps for expired leases"),
        Check("sweeps-happen", "expiry", "it has just done so"),
        Check("sweeps-complete", "expiry", "sweeps change every service that is due"),
        Check("leases-present", "expiry", "every endpoint that is served has a lease"),
        Check("expiry-not-paused", "expiry", "expiry is not paused"),
        Check("guard-inactive", "expiry", "the mass-expiry guard holds nobody"),
        Check("heartbeats-punctual", "registrars", "registrars renew their leases in time"),
        Check("registrars-heard", "registrars", "no registrar has fallen silent"),
        Check("services-routable", "services", "every service has an endpoint that may have traffic"),
        Check("services-not-empty", "services", "every service that an Envoy asks for has endpoints"),
        Check("services-within-limits", "services", "services and endpoints are well below their limits"),
        Check("endpoints-allowed", "services", "every endpoint is in a network where endpoints may be"),
        Check("nothing-quarantined", "services", "no row is quarantined"),
        Check("subscribers-remembered", "subscribers", "every Envoy that polls is remembered"),
        Check("subscribers-not-stuck", "subscribers", "no Envoy rejects what it is sent"),
        Check("subscribers-not-behind", "subscribers", "every Envoy holds the newest version"),
        Check("subscribers-not-silent", "subscribers", "every Envoy polls on"),
        Check("envoy-reachable", "envoy", "its admin interface answers"),
        Check("envoy-live", "envoy", "it is live"),
        Check("envoy-polls", "envoy", "it has EDS clusters that poll by REST"),
        Check("envoy-rejects-nothing", "envoy", "it has rejected no answer"),
        Check("envoy-polls-succeed", "envoy", "its polls succeed"),
        Check("envoy-current", "envoy", "it holds the newest versions"),
        Check("envoy-host-removal", "envoy", "its clusters forget endpoints that are removed"),
        Check("envoy-refresh", "envoy", "it polls at a good pace, and lets polls be held"),
        Check("envoy-no-panic", "envoy", "no cluster is in panic mode"),
    )
}
