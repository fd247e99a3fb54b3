"""A real Envoy that polls over TLS, with a client certificate, while everything about TLS changes."""

import ssl
import time
from functools import partial
from pathlib import Path

import pytest
from harness.envoy import Envoy, envoy
from harness.probing import Authority
from harness.process import eventually, free_port
from harness.registry import registry

pytestmark = pytest.mark.envoy


def _holds(found: Envoy, service: str, hosts: dict[str, str]) -> bool:
    return found.hosts(service) == hosts


def test_no_poll_fails_while_the_pair_is_rotated(database: str, tmp_path: Path, service: str) -> None:
    """Twelve clusters poll and are held; new pairs, bad ones, connections that end after a second: no poll fails."""
    authority = Authority(tmp_path)
    pair, client = authority.issue("127.0.0.1"), authority.issue("spiffe://example.org/web", file="client.pem")
    tls = ssl.create_default_context(cafile=authority.ca)
    names = [f"{service}-{number}" for number in range(12)]
    settings = {"tls_cert_file": pair, "tls_client_ca_file": authority.ca, "connection_age": "1s"}
    with (
        registry(database, tmp_path, tls=tls, plain_listen=f"127.0.0.1:{free_port()}", **settings) as found,
        envoy(
            tmp_path, [found.port], names, refresh_delay="0.05s", livez=True, tls=authority.ca, client=client
        ) as polling,
    ):
        good = pair.read_bytes()
        for round_ in range(3):
            # A bad pair in between, as a rotation that is interrupted leaves it.
            pair.write_bytes(good[: 200 * round_ + 1])
            for name in names:
                assert found.register(name, f"10.0.0.{round_ + 1}:80").status_code == 200
            time.sleep(1.2)
            authority.issue("127.0.0.1")
            good = pair.read_bytes()
            time.sleep(1.2)
        hosts = {f"10.0.0.{number}:80": "HEALTHY" for number in range(1, 4)}
        for name in names:
            eventually(partial(_holds, polling, name, hosts), within=3)
            assert polling.counter(name, "update_failure") == 0
            assert polling.counter(name, "update_rejected") == 0
        assert found.log.read_text().count('"tls_files_loaded"') >= 2
        # Connections did end and begin again: each with the response to a held poll, which a change ended.
        assert polling.counter("registry", "upstream_cx_total") > 12 * 2
        for failures in ("upstream_cx_connect_fail", "upstream_rq_rx_reset", "ssl.connection_error"):
            assert polling.counter("registry", failures) == 0, failures
        assert polling.counter("registry", "health_check.failure") == 0
        assert polling.counter("registry", "ssl.handshake") >= polling.counter("registry", "upstream_cx_total") - 1
