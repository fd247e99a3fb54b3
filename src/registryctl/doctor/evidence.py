"""Evidence of ``registryctl check``: what was observed, before any check evaluates it."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from wire.finding import Finding

Document = dict[str, Any]


class ServedVerdict(Struct, frozen=True):
    """The verdict of a registry process, as far as a client reads it; the API's document has more."""

    at: float
    database_id: str
    version: str
    findings: Sequence[Finding]


class RegistryEvidence(Struct, frozen=True):
    """Answers of one address of the registry.

    Attributes:
        url: the address.
        error: why it gave no answer; all else is empty then.
        ready: whether it is ready for discovery, of one that does not give its verdict.
        verdict: its verdict; None: it refuses to give it, or is of a version before there was one.
        outdated: the version of a registry that has no verdict to give, or a word for one that is not known.
        asked_at: this machine's time in the middle of the request for the verdict.
        took: seconds that this request took.
        services: all services; None: they were not asked for, or the process is not ready.
        later: their versions a while later, when addresses did not agree at first.
        unreadable: the names of services that the process cannot read.
        refused: what this command may not read there, as the registry words it, each with what to do about it.
    """

    url: str
    error: str = ""
    ready: bool | None = None
    verdict: ServedVerdict | None = None
    outdated: str = ""
    asked_at: float = 0.0
    took: float = 0.0
    services: Sequence[Document] | None = None
    later: Mapping[str, int] | None = None
    refused: Sequence[tuple[str, str]] = ()
    unreadable: Sequence[str] = ()

    def versions(self) -> dict[str, int]:
        """Return the version of each service."""
        return {service["name"]: service["version"] for service in self.services or ()}


class ClusterEvidence(Struct, frozen=True):
    """One EDS cluster of an Envoy, and its statistics at two moments.

    Attributes:
        name: the cluster's name.
        service: the service that it asks for.
        config: the cluster as Envoy dumps it.
        first: statistics at first, without their prefix; ``version_text`` is text.
        then: the same a while later.
    """

    name: str
    service: str
    config: Document
    first: Document
    then: Document


class EnvoyEvidence(Struct, frozen=True):
    """Answers of one Envoy's admin interface.

    Attributes:
        url: the admin interface.
        error: why it gave no answer; all else is empty then.
        live: the state that /ready names, like LIVE.
        version: Envoy's version.
        clusters: its EDS clusters.
        first: statistics of all its clusters at first, by their name.
        then: the same a while later.
        members: by the name of each aggregate of clusters, those that it is made of, in order.
    """

    url: str
    error: str = ""
    live: str = ""
    version: str = ""
    clusters: Sequence[ClusterEvidence] = ()
    first: Mapping[str, Document] = field(default_factory=dict)
    then: Mapping[str, Document] = field(default_factory=dict)
    members: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Evidence(Struct, frozen=True):
    """Everything that was observed.

    Attributes:
        version: registryctl's own.
        registries: each address, in order.
        envoys: those that were named.
        exposed: the addresses to which this command sends its token over plain HTTP.
    """

    version: str
    registries: Sequence[RegistryEvidence]
    envoys: Sequence[EnvoyEvidence] = ()
    exposed: Sequence[str] = ()

    @property
    def answering(self) -> list[RegistryEvidence]:
        """The addresses that answer."""
        return [registry for registry in self.registries if not registry.error]

    @property
    def verdicts(self) -> list[tuple[str, RegistryEvidence, ServedVerdict]]:
        """The verdicts, each with the prefix of its lines: nothing where there is one address."""
        several = len(self.registries) > 1
        return [
            (f"{registry.url}: " if several else "", registry, registry.verdict)
            for registry in self.answering
            if registry.verdict is not None
        ]
