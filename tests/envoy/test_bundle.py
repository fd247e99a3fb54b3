"""`registryctl bundle`: everything that helps and nothing that must not leave the house."""

import json
import tarfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.envoy import binary
from harness.no_tls import NO_TLS
from harness.operator import registryctl
from harness.process import eventually, free_port, running
from harness.registry import registry

pytestmark = pytest.mark.envoy

DATABASE_PASSWORD = "hunter2-of-the-database"
_FILTERS = "type.googleapis.com/envoy.extensions.filters"
BEARER = "s3cr3t-of-the-mesh"
IN_METADATA = "t0ken-of-an-app"
IN_URL = "pa55-of-an-operator"
SECRETS = (DATABASE_PASSWORD, BEARER, IN_METADATA, IN_URL)


def bootstrap(admin: int, listener: int) -> dict[str, Any]:
    """Return an Envoy's configuration with secrets where people put them."""
    header = {"header": {"key": "authorization", "value": f"Bearer {BEARER}"}}
    virtual_host = {
        "name": "all",
        "domains": ["*"],
        "request_headers_to_add": [header, {"header": {"key": "x-api-key", "value": BEARER}}],
        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
    }
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "all",
        "route_config": {"virtual_hosts": [virtual_host]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
            }
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "node": {"id": "secretive", "cluster": "tests", "metadata": {"auth_token": IN_METADATA, "zone_hint": "za"}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {
            "listeners": [
                {
                    "name": "all",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": listener}},
                    "filter_chains": [chain],
                }
            ]
        },
    }


def is_live(url: str) -> bool:
    """Tell whether an Envoy has started up."""
    try:
        return httpx.get(f"{url}/ready", trust_env=False, verify=NO_TLS).text.strip() == "LIVE"
    except httpx.TransportError:
        return False


def contents(path: Path) -> dict[str, str]:
    """Return the files of an archive, without the folder that they are in."""
    with tarfile.open(path) as archive:
        own_registry = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            own_registry[member.name.partition("/")[2]] = file.read().decode()
        return own_registry


def test_a_bundle_holds_what_helps_and_no_secret(database: str, tmp_path: Path, service: str) -> None:
    """Planted secrets (database password, bearer header, metadata, own URL) are in none of its files."""
    secretive = database.replace("postgres:@", f"postgres:{DATABASE_PASSWORD}@", 1)
    assert DATABASE_PASSWORD in secretive
    admin = free_port()
    config = tmp_path / "envoy.json"
    config.write_text(json.dumps(bootstrap(admin, free_port())))
    command = [binary(), "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error"]
    target = tmp_path / "support.tar.gz"
    with registry(secretive, tmp_path) as own_registry, running(command, log=tmp_path / "envoy.log"):
        detail = f"GET http://ops:{IN_URL}@10.0.0.1/: 401 Authorization: Bearer {BEARER}"
        own_registry.register(service, "10.6.0.1:80", metadata={"token": IN_METADATA, "team": "shop"}, detail=detail)
        url = own_registry.url.replace("http://", f"http://ops:{IN_URL}@")
        envoy_url = f"http://127.0.0.1:{admin}"
        eventually(lambda: is_live(envoy_url), within=20)
        said = registryctl(url, "bundle", str(target), "--envoy", envoy_url)
        assert said.status == 0, said
        again = registryctl(url, "bundle", str(target))
        assert (again.status, "is there already" in again.err) == (2, True)
    files = contents(target)
    assert {secret: [name for name, text in files.items() if secret in text] for secret in SECRETS} == {
        secret: [] for secret in SECRETS
    }
    assert not any(secret in said.out + said.err for secret in SECRETS)
    assert files.keys() == {
        "versions.json",
        "check.json",
        "check.txt",
        "readyz.json",
        "state.json",
        "verdict.json",
        "whoami.json",
        "expiry.json",
        "subscribers.json",
        "services.json",
        f"endpoints/{service}.json",
        "events.json",
        "metrics.txt",
        *(f"envoy-1/{name}" for name in ("config_dump.json", "clusters.json", "stats.txt", "server_info.json")),
    }
    assert all(name in said.out for name in files)
    (endpoint,) = json.loads(files[f"endpoints/{service}.json"])
    assert endpoint["metadata"] == {"token": "[redacted]", "team": "shop"}
    assert endpoint["detail"] == "GET http://[redacted]@10.0.0.1/: 401 Authorization: Bearer [redacted]"
    assert json.loads(files["events.json"])[0]["kind"] == "registered"
    assert "registry_polls_total" in files["metrics.txt"]
    assert '"key": "authorization"' in files["envoy-1/config_dump.json"]
    assert "zone_hint" in files["envoy-1/config_dump.json"]
    registry_checks = json.loads(files["check.json"])["categories"][0]["checks"]
    # Without TLS there is no certificate to look at.
    assert {check["id"] for check in registry_checks if check["result"] != "ok"} == {"tls-certificate"}


def test_a_bundle_of_a_registry_that_is_away_says_so(tmp_path: Path) -> None:
    """It is written all the same; each file says why it is empty."""
    target = tmp_path / "away.tar.gz"
    said = registryctl(f"http://127.0.0.1:{free_port()}", "bundle", str(target), "-o", "json")
    assert said.status == 0, said
    files = contents(target)
    assert "no registry answers" in files["state.json"]
    assert json.loads(files["check.json"])["ok"] is False
    assert {file["name"] for file in said.json["files"]} == files.keys()
