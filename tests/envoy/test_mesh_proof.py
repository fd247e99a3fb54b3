"""Proof by a real Envoy: what it refuses, as faults of the definitions, and the bounds of its process."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from harness.envoy import binary
from msgspec import structs

from meshconfig.definition.registry_client import RegistryClient
from meshconfig.effective import Configuration
from meshconfig.position import Fault
from meshconfig.proof import UnprovenError, faults_of_mesh
from meshconfig.repository import read
from meshconfig.resource import Catalog, Kind, Snapshot, make_resource
from meshconfig.snapshot import compile_mesh
from meshconfig.stand_in_files import FILES
from wire.envoy_validation import EnvoyUnavailableError, EnvoyValidator, envoy_validator

pytestmark = pytest.mark.envoy

DEFINITIONS = {
    "mesh.yaml": "tracing: {provider: zipkin, address: '127.0.0.1:9411'}\nstatistics: {prometheus: {port: 9999}}\n",
    "services/web.yaml": """\
service: web
dependencies:
- service: user
  outlier_detection: {consecutive_5xx: 3}
  routes:
  - {path: /ping, timeout: 100ms}
  - {prefix: /api, methods: [GET]}
  - {prefix: /}
- service: shop
  routes:
  - {prefix: /next, split: {shop: 90, shop-next: 10}}
  - {prefix: /}
- name: payments
  address: api.payments.example:443
  tls: {ca_file: /etc/ssl/payments.pem}
""",
    "services/admin.yaml": "service: admin\ndependencies:\n- service: user\n- service: shop\n",
}
"""A mesh of two callers; one file names a certificate that only its Envoys have."""

EXPECTED = """\
services/web.yaml:11:5: Envoy refuses route 2 of 'shop' in the routes 'default' of web: missing ): (.
services/web.yaml:13:3: Envoy refuses the cluster 'payments' of web: no such field: 'bogus' in \
envoy.config.cluster.v3.Cluster.
services/web.yaml:4:22: Envoy refuses the cluster 'user' of web: outlier detector's max_ejection_time cannot be \
smaller than base_ejection_time.
services/web.yaml:8:5: Envoy refuses route 5 of 'user' in the routes 'default' of web: route: unknown cluster 'gone'.
""".splitlines()

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def validator() -> Iterator[EnvoyValidator]:
    """Yield the Envoy that validates."""
    with envoy_validator(binary(), FILES) as envoy:
        yield envoy


@pytest.fixture(scope="module")
def configuration() -> Configuration:
    """Return the mesh."""
    merged, faults = read(DEFINITIONS)
    assert merged is not None, faults
    return merged


def changed(snapshot: Snapshot, changes: Mapping[tuple[str, Kind, str], Change]) -> Snapshot:
    """Return a snapshot with changed resources, as a compiler that is wrong would have made them."""
    nodes = {node: {kind: dict(named) for kind, named in kinds.items()} for node, kinds in snapshot.nodes.items()}
    for (node, kind, name), change in changes.items():
        document = msgspec.json.decode(nodes[node][kind][name].body)
        change(document)
        nodes[node][kind][name] = make_resource(kind, document)
    return Snapshot(nodes)


def proven(configuration: Configuration, snapshot: Snapshot, validator: EnvoyValidator) -> list[Fault]:
    """Return what Envoy has against a snapshot and the bootstraps of its services."""
    return faults_of_mesh(configuration, snapshot, validator.validate, str(validator.directory))


def test_what_the_compiler_makes_is_proven(configuration: Configuration, validator: EnvoyValidator) -> None:
    """Envoy accepts all of it and every bootstrap, though it has none of the files that they name."""
    assert proven(configuration, compile_mesh(configuration, Catalog()), validator) == []
    assert re.fullmatch(r"\d+\.\d+\.\d+", validator.version)


def _routes(document: dict[str, Any], host: str) -> list[dict[str, Any]]:
    (routes,) = [each["routes"] for each in document["virtual_hosts"] if each["name"] == host]
    return list(routes)


def _two_faults(document: dict[str, Any]) -> None:
    """Put a bad expression into one route, and into another a cluster that is not served: live, it answers 503."""
    _routes(document, "shop")[1].update(match={"safe_regex": {"regex": "("}})
    _routes(document, "user")[-1]["route"].update(cluster="gone")


def test_all_faults_are_told_at_the_lines_that_they_come_from(
    configuration: Configuration, validator: EnvoyValidator
) -> None:
    """Envoy names one error, often without its place: each is found, and the rest is looked at all the same."""
    changes: dict[tuple[str, Kind, str], Change] = {
        # The first is named by its place; the others say nothing of where they are.
        ("web", "clusters", "payments"): lambda document: document.update(bogus=1),
        ("web", "clusters", "user"): lambda document: document["outlier_detection"].update(max_ejection_time="1s"),
        ("web", "routes", "default"): _two_faults,
    }
    faults = proven(configuration, changed(compile_mesh(configuration, Catalog()), changes), validator)
    assert sorted(map(str, faults)) == EXPECTED


def test_a_fault_of_the_mesh_is_told_once(configuration: Configuration, validator: EnvoyValidator) -> None:
    """What stands in every bootstrap is no fault of a service that happens to be validated with it."""
    client = RegistryClient(addresses=("registry.internal:8080",))
    mesh = structs.replace(configuration.mesh, registry=client, dns_family="bogus")
    wrong = structs.replace(configuration, mesh=mesh)
    faults = proven(wrong, compile_mesh(configuration, Catalog()), validator)
    assert [fault.position.file for fault in faults] == ["mesh.yaml"]


# The bounds of the process, with scripts in the place of Envoy.

MakeEnvoy = Callable[[str], str]


@pytest.fixture
def make_envoy(tmp_path: Path) -> MakeEnvoy:
    """Return a function that makes an Envoy of a shell script, which tells its version as a real one does."""

    def make(script: str) -> str:
        path = tmp_path / "envoy"
        version = "envoy  version: 0123456789abcdef/1.40.0/Clean/RELEASE/BoringSSL"
        path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{version}" && exit\n{script}\n')
        path.chmod(0o755)
        return str(path)

    return make


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -SEGV $$", "Envoy was ended by signal 11"),
        ("echo 'bad option'; exit 1", "Envoy ended with status 1 and said: bad option"),
        ("sleep 600 & echo $! > /proc/self/fd/1; wait", "did not come to an end"),
        ("exec >&- 2>&-; sleep 600", "did not come to an end"),
        ("yes", "wrote more than"),
    ],
)
def test_an_envoy_that_comes_to_no_verdict_proves_nothing(
    make_envoy: MakeEnvoy, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    """A crash, a flood and a run without an end are failures, not refusals; nothing of them stays."""
    monkeypatch.setattr("wire.envoy_validation.MAX_FLOOD", 1_000_000)
    # Only where it has no end is the time waited for; else a busy machine may take all of it.
    patience = 0.5 if "did not" in reason else 30.0
    with envoy_validator(make_envoy(script), FILES, timeout=patience) as validator:
        directory = validator.directory
        result = validator.validate(b"{}")
    assert (result.verdict, reason in result.output) == ("failed", True), result.output
    assert len(result.output) < 5000
    assert not directory.exists()
    for pid in re.findall(r"^\d+$", result.output, re.MULTILINE):
        assert not Path(f"/proc/{pid}").exists()


def test_a_proof_without_a_verdict_is_none(make_envoy: MakeEnvoy, configuration: Configuration) -> None:
    """The error says why, so that nobody takes it for a fault of the definitions."""
    with (
        envoy_validator(make_envoy("kill -KILL $$"), FILES) as validator,
        pytest.raises(UnprovenError, match="signal 9"),
    ):
        proven(configuration, compile_mesh(configuration, Catalog()), validator)


def test_envoy_has_few_rights(make_envoy: MakeEnvoy, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not root, gets nothing of the environment, cannot write files, and its memory has a limit."""
    monkeypatch.setenv("REGISTRY_DATABASE_URL", "postgresql://secret")
    script = (
        "id -u; env; ulimit -d; (echo x > f) 2>/dev/null && echo wrote; echo error initializing configuration; exit 1"
    )
    with envoy_validator(make_envoy(script), FILES) as validator:
        output = validator.validate(b"{}").output
    assert output.split()[0] != "0"
    assert "secret" not in output
    assert str(2 * 1024 * 1024) in output
    assert "wrote" not in output


def test_the_script_of_a_package_stands_for_the_envoy_that_it_starts(tmp_path: Path) -> None:
    """The user that Envoy gets may be unable to run it: its interpreter is in the home of the one that installed it."""
    script, python = tmp_path / "envoy", tmp_path / "python"
    for path, text in ((script, "#!/nowhere/python\n"), (python, f"#!/bin/sh\necho {binary()}\n")):
        path.write_text(text)
        path.chmod(0o755)
    with envoy_validator(str(script), FILES) as validator:
        assert validator.version.startswith("1.")


@pytest.mark.parametrize("program", ["/nowhere/envoy", "no-such-envoy", "/bin/true", "/etc/hosts"])
def test_without_an_envoy_there_is_no_proof(program: str) -> None:
    """The error names the program and what to do."""
    with pytest.raises(EnvoyUnavailableError, match=program), envoy_validator(program, FILES):
        pass


def test_a_proof_can_be_given_up(make_envoy: MakeEnvoy) -> None:
    """Another thread stops a run, as a registry does that ends; no other begins."""
    with envoy_validator(make_envoy("sleep 600"), FILES) as validator:
        threading.Timer(0.2, validator.stop).start()
        started = time.monotonic()
        assert validator.validate(b"{}").verdict == "failed"
        assert validator.validate(b"{}").verdict == "failed"
        assert time.monotonic() - started < 5
