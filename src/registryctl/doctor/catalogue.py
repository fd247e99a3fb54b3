"""Catalogue of the checks that ``registryctl check`` makes; docs/checks.md explains each of them."""

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

    @property
    def link(self) -> str:
        """Where the check is explained, and what to do when it does not pass."""
        return f"{PAGE}#{self.id}"


CHECKS = {
    check.id: check
    for check in (
        CheckDescription("registry-reachable", "registry", "every address of the registry answers"),
        CheckDescription("registry-ready", "registry", "every process that answers is ready for discovery"),
        CheckDescription("registry-version", "registry", "registry and registryctl are of one version"),
        CheckDescription("tls-certificate", "registry", "the certificate is valid, and its files can be used"),
        CheckDescription("check-allowed", "access", "this command may read everything that it checks"),
        CheckDescription("access-closed", "access", "access is not off, or only this machine is served"),
        CheckDescription("access-refuses-nobody", "access", "no request of the last day would be refused"),
        CheckDescription("tokens-lasting", "access", "no token ends soon"),
        CheckDescription("admin-narrow", "access", "the verb admin is given to few, and not for long"),
        CheckDescription("access-readable", "access", "every token and identity can be read"),
        CheckDescription("tokens-encrypted", "access", "no token is sent over plain HTTP"),
        CheckDescription("audit-complete", "access", "no entry of the audit was lost within a day"),
        CheckDescription("postgresql-answers", "postgresql", "PostgreSQL answers the registry"),
        CheckDescription("postgresql-writable", "postgresql", "PostgreSQL accepts writes"),
        CheckDescription("postgresql-schema", "postgresql", "PostgreSQL has the schema that the registry expects"),
        CheckDescription("history-kept", "postgresql", "no event was deleted before its retention was over"),
        CheckDescription("snapshot-fresh", "snapshot", "discovery is answered from what PostgreSQL says now"),
        CheckDescription(
            "snapshot-on-disk", "snapshot", "the last state is kept on disk for a start without PostgreSQL"
        ),
        CheckDescription("replicas-working", "replicas", "no process reports that it cannot do its work"),
        CheckDescription("replicas-one-database", "replicas", "all addresses are one registry"),
        CheckDescription("replicas-agree", "replicas", "all addresses serve the same versions"),
        CheckDescription("clock-registry", "clocks", "the registry's clock agrees with this machine's"),
        CheckDescription("clock-postgresql", "clocks", "PostgreSQL's clock agrees with the registry's"),
        CheckDescription("sweeper-leads", "expiry", "one process sweeps for expired leases"),
        CheckDescription("sweeps-happen", "expiry", "sweeps come in time"),
        CheckDescription("sweeps-complete", "expiry", "sweeps change every service that is due"),
        CheckDescription("leases-present", "expiry", "every endpoint that is served has a lease"),
        CheckDescription("expiry-not-paused", "expiry", "expiry is not paused"),
        CheckDescription("guard-inactive", "expiry", "the mass-expiry guard holds no endpoint"),
        CheckDescription("heartbeats-punctual", "registrars", "registrars renew their leases in time"),
        CheckDescription("registrars-heard", "registrars", "no registrar has fallen silent"),
        CheckDescription("services-routable", "services", "every service that has endpoints has a routable one"),
        CheckDescription("services-not-empty", "services", "every service that an Envoy asks for has endpoints"),
        CheckDescription("services-within-limits", "services", "services and endpoints are well below their limits"),
        CheckDescription("endpoints-allowed", "services", "every endpoint is in a network that is allowed"),
        CheckDescription("limits-not-reached", "services", "no limit refused anything within a day"),
        CheckDescription("nothing-quarantined", "services", "no row is quarantined"),
        CheckDescription("subscribers-remembered", "subscribers", "every Envoy that polls is remembered"),
        CheckDescription("subscribers-not-stuck", "subscribers", "no Envoy that is remembered rejects what it is sent"),
        CheckDescription(
            "subscribers-not-behind", "subscribers", "every Envoy that is remembered holds the newest version"
        ),
        CheckDescription("subscribers-not-silent", "subscribers", "every Envoy that is remembered goes on polling"),
        CheckDescription("envoy-reachable", "envoy", "Envoy's admin interface answers"),
        CheckDescription("envoy-live", "envoy", "Envoy is live"),
        CheckDescription("envoy-polls", "envoy", "Envoy has EDS clusters that poll by REST"),
        CheckDescription("envoy-rejects-nothing", "envoy", "Envoy has rejected no answer"),
        CheckDescription("envoy-polls-succeed", "envoy", "Envoy's polls succeed"),
        CheckDescription("envoy-current", "envoy", "Envoy holds the newest versions"),
        CheckDescription("envoy-host-removal", "envoy", "Envoy's clusters forget endpoints that are removed"),
        CheckDescription("envoy-refresh", "envoy", "Envoy polls at a good pace, and lets polls be held"),
        CheckDescription("envoy-no-panic", "envoy", "no cluster of Envoy is in panic mode"),
    )
}
"""Every check by its id, in the order of the report."""
