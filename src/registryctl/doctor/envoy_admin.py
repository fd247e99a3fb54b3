"""Client of an Envoy's admin interface."""

from typing import Any

import httpx
import msgspec

from registryctl.client import reason_of
from registryctl.doctor.evidence import ClusterEvidence, Document, EnvoyEvidence
from registryctl.errors import UnreachableError
from registryctl.redaction import redact_text

_STATS = (
    r"^cluster\..*\.(version_text|update_(rejected|failure|success)|membership_(total|healthy|degraded|excluded)"
    r"|upstream_rq_40[13])$"
)
_AGGREGATE = "envoy.clusters.aggregate"
_CLUSTERS = ("static_clusters", "dynamic_active_clusters")


class EnvoyAdmin:
    """Client that reads the state of one Envoy, and changes nothing.

    Args:
        url: the admin interface.
        timeout: longest wait for an answer, in seconds.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.shown = redact_text(url)
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def observe(self) -> EnvoyEvidence:
        """Return the state of the Envoy, or why it does not answer."""
        try:
            live = self.text("/ready", any_status=True).strip()
            version = self.json("/server_info")["version"].split("/")[1]
            statistics = self.statistics()
            configs = self._configs()
            clusters = [
                ClusterEvidence(
                    config["name"],
                    config.get("eds_cluster_config", {}).get("service_name") or config["name"],
                    config,
                    first=statistics.get(config["name"], {}),
                    then=statistics.get(config["name"], {}),
                )
                for config in configs
                if config.get("type") == "EDS"
            ]
            members = {config["name"]: names for config in configs if (names := _members_of(config))}
        except UnreachableError as error:
            return EnvoyEvidence(self.shown, error=str(error))
        except (KeyError, IndexError, ValueError):
            return EnvoyEvidence(self.shown, error="what answers there is no Envoy's admin interface")
        return EnvoyEvidence(
            self.shown,
            live=live,
            version=version,
            clusters=clusters,
            first=statistics,
            then=statistics,
            members=members,
        )

    def statistics(self) -> dict[str, Document]:
        """Return the counters and gauges of each cluster, by its name."""
        clusters: dict[str, Document] = {}
        for stat in self.json("/stats", {"format": "json", "filter": _STATS}).get("stats", []):
            name = stat.get("name", "")
            if name.startswith("cluster."):
                cluster, _, counter = name.removeprefix("cluster.").rpartition(".")
                clusters.setdefault(cluster, {})[counter] = stat["value"]
        return clusters

    def text(self, path: str, params: Document | None = None, *, any_status: bool = False) -> str:
        """Return the body of an answer.

        Raises:
            UnreachableError: there is no answer, or no good one.
        """
        try:
            response = self._http.get(path, params=params)
        except httpx.TransportError as error:
            raise UnreachableError(reason_of(error)) from None
        if not (response.is_success or any_status):
            raise UnreachableError(f"{path}: {response.status_code} {response.reason_phrase}")
        return response.text

    def json(self, path: str, params: Document | None = None) -> Document:
        """Return a JSON document; raises as ``text`` does."""
        document: Document = msgspec.json.decode(self.text(path, params), type=dict[str, Any])
        return document

    def _configs(self) -> list[Document]:
        dumps = [self.json("/config_dump", {"resource": resource}).get("configs", []) for resource in _CLUSTERS]
        return [config["cluster"] for dump in dumps for config in dump]


def _members_of(config: Document) -> list[str]:
    """Return the clusters that an aggregate is made of; none of another cluster."""
    kind = config.get("cluster_type", {})
    return list(kind.get("typed_config", {}).get("clusters", ())) if kind.get("name") == _AGGREGATE else []
