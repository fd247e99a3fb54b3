"""The mesh configuration's part of the registry's API, as the verbs use it."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from meshconfig.plan import Plan
from registryctl.client import ApiClient, Document, read

APPLY_TIMEOUT = 780.0
"""Seconds that the registry may take for an apply: it compiles and proves for up to 150 s, behind four other jobs."""

_REVISIONS = "/v1/mesh/revisions"


class Application(Struct, frozen=True):
    """The request to apply definitions.

    Attributes:
        files: the text of each file, by its path.
        reason: why, for the history.
        commit: the commit of the repository; may be empty.
        base: the revision that the author has seen; None: the registry compares with none.
        share: the percentage of Envoys that get it first; None: all.
        allow_removal: services whose definitions may go although their Envoys poll.
        unproven: whether to serve what no Envoy has proven.
        proof: the proof that was made elsewhere.
    """

    files: Mapping[str, str]
    reason: str
    commit: str = ""
    base: int | None = None
    share: float | None = None
    allow_removal: Sequence[str] = ()
    unproven: bool = False
    proof: Mapping[str, Any] | None = None


class MeshApi:
    """Requests about the mesh configuration."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def current(self) -> int:
        """Return the number of the newest revision; 0: there is none."""
        newest = list(self._client.pages(_REVISIONS, "revisions", limit=1, cursor="before"))
        return int(read(newest[0])["number"]) if newest else 0

    def revisions(self, limit: int) -> list[Document]:
        """Return the newest revisions, the newest first."""
        return [read(each) for each in self._client.pages(_REVISIONS, "revisions", limit=limit, cursor="before")]

    def revisions_document(self, limit: int) -> Raw:
        """Return the newest revisions as the API has them."""
        return self._client.whole(_REVISIONS, "revisions", limit=limit, cursor="before")

    def revision(self, number: int) -> Raw:
        """Return a revision with its files."""
        return self._client.get(f"{_REVISIONS}/{number}")

    def plan(self, application: Application) -> Raw:
        """Return the plan of an application; nothing is stored."""
        return self._post(application, {"dry_run": "true"})

    def apply(self, application: Application) -> Raw:
        """Apply definitions, and return the revision."""
        return self._post(application, {})

    def roll_back(self, number: int, reason: str, removals: Sequence[str]) -> Raw:
        """Serve an earlier revision again, and return the new one."""
        document = {"reason": reason, "allow_removal": removals}
        path = f"{_REVISIONS}/{number}/rollback"
        return Raw(self._client.ask("POST", path, document=document, timeout=APPLY_TIMEOUT).content)

    def order(self, number: int, action: str, reason: str) -> Raw:
        """Promote a revision, or pause or resume its roll-out; return the services that this concerns."""
        path = f"{_REVISIONS}/{number}/{action}"
        return Raw(self._client.ask("POST", path, document={"reason": reason}).content)

    def rollout(self) -> Raw:
        """Return the roll-outs that are under way, and the shares that have a newer revision."""
        return self._client.get("/v1/mesh/rollout")

    def catalog(self) -> Raw:
        """Return the services that gateways select from, and the names of those that cannot be read."""
        return self._client.whole("/v1/mesh/catalog", "services")

    def forget(self, service: str, reason: str) -> None:
        """Remove a service without endpoints from what gateways select from."""
        self._client.ask("DELETE", f"/v1/mesh/catalog/{quote(service, safe='')}", {"reason": reason})

    def _post(self, application: Application, params: Mapping[str, str]) -> Raw:
        response = self._client.ask("POST", _REVISIONS, params, application, timeout=APPLY_TIMEOUT)
        return Raw(response.content)


def plan_of(document: Raw) -> Plan:
    """Return a plan of the API."""
    return msgspec.json.decode(document, type=Plan)
