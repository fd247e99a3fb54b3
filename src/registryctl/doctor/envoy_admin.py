"""An Envoy's own admin interface."""

from typing import Any

import httpx
import msgspec

from registryctl.client import told
from registryctl.doctor.evidence import ClusterLook, Document, EnvoyLook
from registryctl.errors import UnreachableError
from registryctl.redaction import redact_text

_STATS = r"^cluster\..*\.(version_text|update_(rejected|failure|success)|membership_(total|healthy|degraded|excluded))$"
_CLUSTERS = ("static_clusters", "dynamic_active_clusters")


class Admin:
    """Reads what one Envoy says of itself, and changes nothing.

    Args:
        url: of the admin interface.
        timeout: longest wait for an answer, in seconds.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.shown = redact_text(url)
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def look(self) -> EnvoyLook:
        """Return how it stands; when it does not answer, that."""
        try:
            live = self.text("/ready", any_status=True).strip()
            version = self.json("/server_info")["version"].split("/")[1]
            statistics = self.statistics()
            clusters = [
                ClusterLook(
                    config["name"],
                    config.get("eds_cluster_config", {}).get("service_name") or config["name"],
                    config,
                    found := statistics.get(config["name"], {}),
                    found,
                )
                for config in self._configs()
                if config.get("type") == "EDS"
            ]
        except UnreachableError as error:
            return EnvoyLook(self.shown, error=str(error))
        except (KeyError, IndexError, ValueError):
            return EnvoyLook(self.shown, error="what answers there is no Envoy's admin interface")
        return EnvoyLook(self.shown, live=live, version=version, clusters=clusters)

    def statistics(self) -> dict[str, Document]:
        """Return what is counted of each cluster, by its name."""
        found: dict[str, Document] = {}
        for stat in self.json("/stats", {"format": "json", "filter": _STATS}).get("stats", []):
            name = stat.get("name", "")
            if name.startswith("cluster."):
                cluster, _, counter = name.removeprefix("cluster.").rpartition(".")
                found.setdefault(cluster, {})[counter] = stat["value"]
        return found

    def text(self, path: str, params: Document | None = None, *, any_status: bool = False) -> str:
        """Return what it says.

        Raises:
            UnreachableError: nothing, or nothing good.
        """
        try:
            answer = self._http.get(path, params=params)
        except httpx.TransportError as error:
            raise UnreachableError(told(error)) from None
        if not (answer.is_success or any_status):
            raise UnreachableError(f"{path}: {answer.status_code} {answer.reason_phrase}")
        return answer.text

    def json(self, path: str, params: Document | None = None) -> Document:
        """Return a document; raises as ``text`` does."""
        found: Document = msgspec.json.decode(self.text(path, params), type=dict[str, Any])
        return found

    def _configs(self) -> list[Document]:
        dumps = [self.json("/config_dump", {"resource": resource}).get("configs", []) for resource in _CLUSTERS]
        return [one["cluster"] for dump in dumps for one in dump]
