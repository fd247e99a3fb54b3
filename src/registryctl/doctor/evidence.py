"""What `registryctl check` has seen, before anything is judged."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from registryctl.times import ago

Document = dict[str, Any]


class RegistryLook(Struct, frozen=True):
    """One address of the registry.

    Attributes:
        url: the address.
        error: why it gave no answer; all else is empty then.
        ready: the document of /readyz?verbose.
        version: that of /version.
        state: that of /v1/state; None: it is a registry of before there was one.
        asked_at: this machine's time in the middle of the question for the state.
        took: seconds that question took.
        services: all services; None: it is not ready.
        later: their versions a while later, when addresses did not agree at first.
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

    def versions(self) -> dict[str, int]:
        """Return the version of each service."""
        return {one["name"]: one["version"] for one in self.services or ()}


class ClusterLook(Struct, frozen=True):
    """One EDS cluster of an Envoy, and its statistics at two moments.

    Attributes:
        name: of the cluster.
        service: what it asks for.
        config: the cluster as Envoy dumps it.
        first: statistics at first, without their prefix; ``version_text`` is text.
        then: the same a while later.
    """

    name: str
    service: str
    config: Document
    first: Document
    then: Document


class EnvoyLook(Struct, frozen=True):
    """An Envoy, through its admin interface."""

    url: str
    error: str = ""
    live: str = ""
    version: str = ""
    clusters: Sequence[ClusterLook] = ()


class Look(Struct, frozen=True):
    """Everything that was seen.

    Attributes:
        version: of registryctl.
        registries: each address, in order.
        expiry: the document of /v1/expiry, or None.
        silent: endpoints whose lease has lapsed, the listed ones and those that were removed since.
        subscribers: who polls, or None: the registry does not tell.
        complete: whether these are all subscribers, of all processes.
        refused_ago: seconds since a process did not remember a subscriber, for want of room; None: not lately.
        envoys: those that were named.
    """

    version: str
    registries: Sequence[RegistryLook]
    expiry: Document | None = None
    silent: Sequence[Document] = ()
    subscribers: Sequence[Document] | None = None
    complete: bool = True
    refused_ago: float | None = None
    envoys: Sequence[EnvoyLook] = ()

    @property
    def answering(self) -> list[RegistryLook]:
        """The addresses that answer."""
        return [one for one in self.registries if not one.error]

    @property
    def lacking(self) -> str:
        """Why subscribers may be missing from the list; empty when none are."""
        if self.complete:
            return ""
        if self.refused_ago is None:
            return "of one process only: PostgreSQL is away"
        return f"some are not remembered, the last one {ago(self.refused_ago)} ago"

    @property
    def services(self) -> Sequence[Document] | None:
        """The services, as the first address that is ready tells them."""
        return next((one.services for one in self.registries if one.services is not None), None)

    @property
    def states(self) -> list[tuple[str, Document]]:
        """The states, each with what to write before what is said of it: nothing where there is one address."""
        several = len(self.registries) > 1
        return [(f"{one.url}: " if several else "", one.state) for one in self.answering if one.state is not None]
