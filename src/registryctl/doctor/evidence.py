"""Evidence of ``registryctl check``: what was observed, before any check evaluates it."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from registryctl.subscriber_table import reason_incomplete

Document = dict[str, Any]


class RegistryEvidence(Struct, frozen=True):
    """Answers of one address of the registry.

    Attributes:
        url: the address.
        error: why it gave no answer; all else is empty then.
        ready: the document of /readyz?verbose.
        version: the document of /version.
        state: the document of /v1/state; None: it is a registry of before there was one.
        asked_at: this machine's time in the middle of the request for the state.
        took: seconds that this request took.
        services: all services; None: the process is not ready.
        later: their versions a while later, when addresses did not agree at first.
        refused: what this command may not read there, as the registry words it, each with what to do about it.
    """

    url: str
    error: str = ""
    ready: Document | None = None
    version: Document | None = None
    state: Document | None = None
    asked_at: float = 0.0
    took: float = 0.0
    services: Sequence[Document] | None = None
    later: Mapping[str, int] | None = None
    refused: Sequence[tuple[str, str]] = ()

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
    """

    url: str
    error: str = ""
    live: str = ""
    version: str = ""
    clusters: Sequence[ClusterEvidence] = ()
    first: Mapping[str, Document] = field(default_factory=dict)
    then: Mapping[str, Document] = field(default_factory=dict)


class Evidence(Struct, frozen=True):
    """Everything that was observed.

    Attributes:
        version: registryctl's own.
        registries: each address, in order.
        expiry: the document of /v1/expiry; None: it could not be had.
        silent: endpoints whose lease has lapsed, the listed ones and those that were removed since.
        subscribers: the Envoys that poll, one a service each; None: the registry does not tell.
        complete: whether these are all subscribers, of all processes.
        refused_ago: seconds since a process did not remember a subscriber, for want of room; None: not lately.
        envoys: those that were named.
        exposed: the addresses to which this command sends its token over plain HTTP.
        readable: the services that this command may read, as its grants name them; None: all, as far as is known.
    """

    version: str
    registries: Sequence[RegistryEvidence]
    expiry: Document | None = None
    silent: Sequence[Document] = ()
    subscribers: Sequence[Document] | None = None
    complete: bool = True
    refused_ago: float | None = None
    envoys: Sequence[EnvoyEvidence] = ()
    exposed: Sequence[str] = ()
    readable: Sequence[str] | None = None

    @property
    def answering(self) -> list[RegistryEvidence]:
        """The addresses that answer."""
        return [registry for registry in self.registries if not registry.error]

    @property
    def lacking(self) -> str:
        """Why subscribers may be missing from the list; empty when none are."""
        return reason_incomplete(self.complete, self.refused_ago)

    @property
    def services(self) -> Sequence[Document] | None:
        """The services, as the first address that is ready lists them."""
        return next((registry.services for registry in self.registries if registry.services is not None), None)

    @property
    def unlisted(self) -> str:
        """Why there is no list of services, when there is none."""
        refused = any(registry.refused for registry in self.answering)
        return "this command may not read the services" if refused else "no registry is ready"

    @property
    def states(self) -> list[tuple[str, Document]]:
        """The state documents, each with the prefix of its lines: nothing where there is one address."""
        several = len(self.registries) > 1
        return [
            (f"{registry.url}: " if several else "", registry.state)
            for registry in self.answering
            if registry.state is not None
        ]
