"""The cluster of registries with TLS that docs/security.md shows, on a real Envoy and a real registry."""

import contextlib
import re
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from harness.envoy import Envoy, TokenDirectory, binary
from harness.probing import Authority
from harness.process import eventually, free_port, running
from harness.registry import Registry, registry

from meshconfig.recommended_bootstrap import ListenedService, Node, recommended_bootstrap, registries
from wire.envoy_token import TOKEN_DIRECTORY

pytestmark = pytest.mark.envoy

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
CLIENT = "spiffe://example.org/envoy"


def documented(beginning: str) -> str:
    """Return the block of the page that begins so."""
    (block,) = [text for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL) if beginning in text]
    return str(block)


@contextlib.contextmanager
def envoy_over_tls(found: Registry, authority: Authority, directory: Path, service: str) -> Iterator[Envoy]:
    """Run an Envoy with the documented cluster and certificate, but for addresses and paths."""
    admin, listener = free_port(), free_port()
    token = TokenDirectory(directory / "envoy-token")
    places = {
        TOKEN_DIRECTORY: str(token.path),
        "/etc/envoy/registry-ca.pem": str(authority.ca),
        "/etc/envoy": str(directory),
        "address: registry.internal, port_value: 8443": f"address: 127.0.0.1, port_value: {found.port}",
        # There is no edge, so that Envoy polls the registry itself.
        "port_value: 9903": f"port_value: {free_port()}",
    }

    def here(text: str) -> str:
        for there, place in places.items():
            text = text.replace(there, place)
        return text

    (directory / "certificate-sds.yaml").write_text(here(documented("tls_certificate:\n")))
    local = f"127.0.0.1:{admin}"
    plain = registries(local, token_directory=str(token.path))
    listened = ListenedService(service, f"127.0.0.1:{listener}")
    config = recommended_bootstrap(Node("envoy", "tests", "r"), local, plain, [listened])
    clusters = config["static_resources"]["clusters"]
    clusters[:1] = yaml.safe_load(here(documented("- name: registry\n")))
    path, log = directory / "envoy.yaml", directory / "envoy.log"
    path.write_text(yaml.safe_dump(config))
    command = [binary(), "-c", str(path), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    with running(command, log=log) as process, contextlib.closing(Envoy(admin, listener, log)) as envoy:
        eventually(lambda: process.poll() is not None or envoy.live(), within=20, said=log.read_text)
        assert process.poll() is None, log.read_text()[-2000:]
        yield envoy


def has_hosts(envoy: Envoy, service: str, number: int) -> bool:
    """Return whether Envoy holds so many hosts."""
    return len(envoy.hosts(service)) == number


def test_the_documented_cluster_polls_over_tls_with_its_own_certificate(
    database: str, tmp_path: Path, service: str
) -> None:
    """TLS 1.3, a certificate that is rotated, and connections that the registry ends for its sake: no poll fails."""
    authority = Authority(tmp_path)
    pair = authority.issue("registry.internal", "127.0.0.1", file="registry.pem")
    authority.issue(CLIENT, file="certificate.pem")
    settings = {"tls_cert_file": pair, "tls_client_ca_file": authority.ca, "connection_age": "1s"}
    trust = ssl.create_default_context(cafile=authority.ca)
    with (
        registry(database, tmp_path, tls=trust, **settings) as found,
        envoy_over_tls(found, authority, tmp_path, service) as envoy,
    ):
        serials: set[str] = set()
        for number in range(1, 4):
            found.register(service, f"10.0.0.{number}:80", ttl=600)
            eventually(partial(has_hosts, envoy, service, number), within=5)
            serials |= envoy.certificate_serials()
            authority.issue(CLIENT, file="certificate.pem")
            eventually(partial(_has_others, envoy, frozenset(serials)), within=5)
            handshakes = envoy.total("cluster.registry/direct.ssl.handshake")
            # The registry ends a connection with a client certificate after a second, by its next response.
            eventually(partial(_is_over, found, service, envoy, handshakes), within=5, every=0.2)
        assert len(serials) == 3
        assert envoy.total("cluster.registry/direct.ssl.versions.TLSv1.3") > 0
        assert envoy.total("cluster.registry/direct.ssl.no_certificate") == 0
        # The first poll may go to the edge, of which Envoy does not know yet that it is away.
        assert envoy.counter(service, "update_failure") <= 1
        assert envoy.total("cluster.registry/direct.health_check.failure") == 0


def _has_others(envoy: Envoy, serials: frozenset[str]) -> bool:
    """Return whether Envoy has another certificate than those."""
    return not serials & envoy.certificate_serials()


def _is_over(found: Registry, service: str, envoy: Envoy, handshakes: int) -> bool:
    """Change something, which answers a held poll; return whether there was another handshake since."""
    weight = 1 + envoy.total("cluster.registry/direct.upstream_rq_completed") % 100
    found.register(service, "10.0.0.1:80", ttl=600, weight=weight)
    return envoy.total("cluster.registry/direct.ssl.handshake") > handshakes
