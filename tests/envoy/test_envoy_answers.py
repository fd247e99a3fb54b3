"""What is wrong with resources, and who says so: definitions, Envoy's validation, and a live Envoy that polls them.

Definitions have to refuse what Envoy takes silently; the proof what a live Envoy refuses, or ignores. `make proofs`
runs this; ANSWERS_PAGE names a file for the table.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from harness.envoy import Envoy, binary
from harness.mesh_envoy import envoy_of
from harness.mesh_server import MeshServer, mesh_server
from harness.process import eventually, free_port

from meshconfig.definition.admin import Admin
from meshconfig.definition.listen import Listen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.effective import Configuration
from meshconfig.repository import read
from meshconfig.resource import Catalog, Kind, Snapshot, make_resource
from meshconfig.snapshot import compile_mesh
from meshconfig.stand_in_files import FILES
from meshconfig.static_bootstrap import static_bootstraps
from wire.envoy_validation import EnvoyValidator, envoy_validator

pytestmark = [pytest.mark.envoy, pytest.mark.proof]

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "mesh.md"

Change = Callable[[dict[str, Any]], object]
Answer = Literal["accepts", "refuses"]
ACCEPTS: Answer = "accepts"
REFUSES: Answer = "refuses"


@dataclass(frozen=True)
class Mutation:
    """A resource that is wrong, the definition that says the same, and the answers of Envoy.

    Attributes:
        name: what is wrong.
        kind: the kind of resource.
        change: makes it wrong.
        definition: lines of the dependency `user`; empty where no definition can say it.
        validation: the answer of `envoy --mode validate`.
        live: the answer of an Envoy that polls it; None where it is not asked, since it does not survive.
    """

    name: str
    kind: Kind
    change: Change
    definition: str
    validation: Answer
    live: Answer | None


def _cluster(**fields: Any) -> Change:
    return lambda document: document.update(fields)


def _route(**fields: Any) -> Change:
    """Change the action of the first route."""
    return lambda document: document["virtual_hosts"][0]["routes"][0]["route"].update(fields)


def _match(**fields: Any) -> Change:
    return lambda document: document["virtual_hosts"][0]["routes"][0].update(match=fields)


def _host(**fields: Any) -> Change:
    return lambda document: document["virtual_hosts"][0].update(fields)


def _add_host(**fields: Any) -> Change:
    return lambda document: document["virtual_hosts"].insert(0, {"name": "more", "domains": ["more"], **fields})


def _fault(**fields: Any) -> Change:
    config = {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault", **fields}
    return _host(typed_per_filter_config={"envoy.filters.http.fault": config})


def _checked(**fields: Any) -> Change:
    check = {"timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1, **fields}
    return _cluster(health_checks=[check])


def _rest(cluster: dict[str, Any]) -> dict[str, Any]:
    source: dict[str, Any] = cluster["eds_cluster_config"]["eds_config"]["api_config_source"]
    return source


def _static(host: str, port: int) -> Change:
    def change(document: dict[str, Any]) -> None:
        address = {"socket_address": {"address": host, "port_value": port}}
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        document.pop("eds_cluster_config", None)
        document.update(type="STRICT_DNS", load_assignment={"cluster_name": "user", "endpoints": endpoints})

    return change


def _retry(**fields: Any) -> Change:
    return _route(retry_policy={"retry_on": "connect-failure", **fields})


def _weights(*weights: int) -> Change:
    def change(document: dict[str, Any]) -> None:
        clusters = [{"name": "user", "weight": weight} for weight in weights]
        document["virtual_hosts"][0]["routes"][0]["route"] = {"weighted_clusters": {"clusters": clusters}}

    return change


_CORS = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def _ca(path: str) -> Change:
    common = {"validation_context": {"trusted_ca": {"filename": path}}}
    context = {"@type": _TLS, "common_tls_context": common}
    return _cluster(transport_socket={"name": "envoy.transport_sockets.tls", "typed_config": context})


PERCENT_200 = {"numerator": 200, "denominator": "HUNDRED"}

MUTATIONS = [
    Mutation("unknown field of a cluster", "clusters", _cluster(bogus=1), "bogus: 1", REFUSES, ACCEPTS),
    Mutation("unknown value of an enum", "clusters", _cluster(lb_policy="FOO"), "protocol: foo", REFUSES, ACCEPTS),
    Mutation("connect_timeout 0", "clusters", _cluster(connect_timeout="0s"), "connect_timeout: 0s", REFUSES, REFUSES),
    Mutation("no duration", "clusters", _cluster(connect_timeout="x"), "connect_timeout: x", REFUSES, REFUSES),
    Mutation(
        "longest ejection below the first",
        "clusters",
        lambda document: document["outlier_detection"].update(max_ejection_time="1s"),
        "outlier_detection: {base: 30s, max: 1s}",
        REFUSES,
        REFUSES,
    ),
    Mutation(
        "max_ejection_percent 101",
        "clusters",
        lambda document: document["outlier_detection"].update(max_ejection_percent=101),
        "outlier_detection: {max_percent: 101}",
        REFUSES,
        REFUSES,
    ),
    Mutation(
        "a gRPC check without HTTP/2",
        "clusters",
        _checked(grpc_health_check={}),
        "health_check: {grpc: ''}",
        REFUSES,
        REFUSES,
    ),
    Mutation(
        "a check without an interval",
        "clusters",
        _checked(http_health_check={"path": "/"}, interval="0s"),
        "health_check: {http: /, interval: 0s}",
        REFUSES,
        REFUSES,
    ),
    Mutation(
        "a circuit breaker of 0",
        "clusters",
        _cluster(circuit_breakers={"thresholds": [{"max_connections": 0}]}),
        "limit: {connections: 0}",
        ACCEPTS,
        ACCEPTS,
    ),
    Mutation(
        "two thresholds of one priority",
        "clusters",
        _cluster(circuit_breakers={"thresholds": [{"max_requests": 1}, {"max_requests": 2}]}),
        "",
        ACCEPTS,
        ACCEPTS,
    ),
    Mutation("port 0", "clusters", _static("shop.invalid", 0), "address: shop.invalid:0", ACCEPTS, ACCEPTS),
    Mutation("port 70000", "clusters", _static("shop.invalid", 70000), "address: shop.invalid:70000", REFUSES, REFUSES),
    Mutation("a URL for a host", "clusters", _static("http://shop", 80), "address: http://shop:80", ACCEPTS, ACCEPTS),
    Mutation("a file of authorities that is not there", "clusters", _ca("/nowhere.pem"), "", ACCEPTS, REFUSES),
    Mutation(
        "slow start with consistent hashing",
        "clusters",
        _cluster(lb_policy="MAGLEV", round_robin_lb_config={"slow_start_config": {"slow_start_window": "1s"}}),
        "sticky: {by: source_ip}\n  slow_start: 1s",
        ACCEPTS,
        ACCEPTS,
    ),
    Mutation(
        "a poll each 5 ms",
        "clusters",
        lambda document: document["eds_cluster_config"]["eds_config"]["api_config_source"].update(
            refresh_delay="0.005s"
        ),
        "",
        ACCEPTS,
        None,
    ),
    Mutation("a cluster that is not there", "routes", _route(cluster="gone"), "", REFUSES, ACCEPTS),
    Mutation("no path", "routes", _match(), "routes: [{timeout: 1s}]", REFUSES, REFUSES),
    Mutation(
        "a regular expression that is none",
        "routes",
        _match(safe_regex={"regex": "("}),
        "routes: [{regex: '('}]",
        REFUSES,
        REFUSES,
    ),
    Mutation("unknown field of routes", "routes", _route(bogus=1), "routes: [{prefix: /, bogus: 1}]", REFUSES, ACCEPTS),
    Mutation(
        "two hosts equal but for case", "routes", _add_host(domains=["USER"]), "hosts: [user, USER]", REFUSES, REFUSES
    ),
    Mutation("weights of 0", "routes", _weights(0, 0), "routes: [{prefix: /, split: {user: 0}}]", REFUSES, REFUSES),
    Mutation(
        "an unknown reason",
        "routes",
        _retry(retry_on="sometimes"),
        "retry: {when: [sometimes]}",
        ACCEPTS,
        ACCEPTS,
    ),
    Mutation(
        "statuses to retry without their reason",
        "routes",
        _retry(retriable_status_codes=[503]),
        "retry: {when: [connect-failure], statuses: [503]}",
        ACCEPTS,
        ACCEPTS,
    ),
    Mutation(
        "a try longer than the request",
        "routes",
        _route(timeout="1s", retry_policy={"retry_on": "5xx", "per_try_timeout": "2s"}),
        "timeout: 1s\n  retry: {per_try_timeout: 2s}",
        ACCEPTS,
        ACCEPTS,
    ),
    Mutation("a prefix without /", "routes", _match(prefix="api"), "routes: [{prefix: api}]", ACCEPTS, ACCEPTS),
    Mutation("a path with a query", "routes", _match(path="/a?b=1"), "routes: [{path: '/a?b=1'}]", ACCEPTS, ACCEPTS),
    Mutation(
        "a route behind one that takes all",
        "routes",
        lambda document: document["virtual_hosts"][0]["routes"].append(document["virtual_hosts"][0]["routes"][0]),
        "routes: [{prefix: /}, {prefix: /api}]",
        ACCEPTS,
        ACCEPTS,
    ),
    Mutation(
        "a header name with a blank",
        "routes",
        _host(request_headers_to_add=[{"header": {"key": "x y", "value": "1"}}]),
        "headers: {add: {'x y': '1'}}",
        ACCEPTS,
        ACCEPTS,
    ),
    Mutation(
        "the header host removed",
        "routes",
        _host(request_headers_to_remove=["host"]),
        "headers: {remove: [host]}",
        REFUSES,
        REFUSES,
    ),
    Mutation(
        "a fault of 200 %",
        "routes",
        _fault(abort={"http_status": 503, "percentage": PERCENT_200}),
        "fault: {abort: {status: 503, percent: 200}}",
        ACCEPTS,
        ACCEPTS,
    ),
    Mutation(
        "a fault with status 9999",
        "routes",
        _fault(abort={"http_status": 9999, "percentage": {"numerator": 1}}),
        "fault: {abort: {status: 9999}}",
        REFUSES,
        REFUSES,
    ),
    Mutation(
        "a setting of a filter that is not in the chain",
        "routes",
        _host(
            typed_per_filter_config={
                "envoy.filters.http.cors": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy"
                }
            }
        ),
        "",
        ACCEPTS,
        ACCEPTS,
    ),
    Mutation(
        "metadata to match in a cluster without subsets",
        "routes",
        _route(metadata_match={"filter_metadata": {"envoy.lb": {"revision": "1"}}}),
        "",
        ACCEPTS,
        ACCEPTS,
    ),
    Mutation(
        "a hash policy in a cluster that does not hash",
        "routes",
        _route(hash_policy=[{"header": {"header_name": "x-user"}}]),
        "",
        ACCEPTS,
        ACCEPTS,
    ),
    Mutation("two virtual hosts of one name", "routes", _add_host(name="user"), "", ACCEPTS, ACCEPTS),
    Mutation("a negative timeout", "routes", _route(timeout="-1s"), "timeout: -1s", REFUSES, REFUSES),
    Mutation(
        "a shadow of 200 %",
        "routes",
        _route(request_mirror_policies=[{"cluster": "user", "runtime_fraction": {"default_value": PERCENT_200}}]),
        "shadow: {service: user, percent: 200}",
        ACCEPTS,
        ACCEPTS,
    ),
    Mutation(
        "a shadow to a cluster that is not there",
        "routes",
        _route(request_mirror_policies=[{"cluster": "gone"}]),
        "",
        REFUSES,
        ACCEPTS,
    ),
]


def mesh_of(definition: str = "") -> tuple[Configuration | None, list[str]]:
    """Return a mesh whose service `web` calls `user` with these lines, and what is wrong with it."""
    line = f"  {definition}\n" if definition else ""
    dependency = f"- name: user\n{line}" if definition.startswith("address") else f"- service: user\n{line}"
    configuration, faults = read({"services/web.yaml": f"service: web\ndependencies:\n{dependency}"})
    return configuration, [str(fault) for fault in faults]


def changed(snapshot: Snapshot, mutation: Mutation) -> Snapshot:
    """Return the snapshot with the wrong resource."""
    nodes = {node: {kind: dict(named) for kind, named in kinds.items()} for node, kinds in snapshot.nodes.items()}
    name = "user" if mutation.kind == "clusters" else "default"
    document = msgspec.json.decode(nodes["web"][mutation.kind][name].body)
    mutation.change(document)
    nodes["web"][mutation.kind][name] = make_resource(mutation.kind, document)
    return Snapshot(nodes)


def validated(snapshot: Snapshot, validator: EnvoyValidator) -> Answer:
    """Return the answer of Envoy's validation."""
    (embedded,) = static_bootstraps(snapshot, directory=str(validator.directory))
    verdict = validator.validate(embedded.encode()).verdict
    assert verdict != "failed"
    return REFUSES if verdict == "refused" else ACCEPTS


def polled(server: MeshServer, envoy: Envoy, mutation: Mutation, good: Snapshot) -> Answer:
    """Serve a wrong resource to an Envoy until it says what it has of it, and then the right one again."""
    counter = {"clusters": "cluster_manager.cds", "routes": "http.egress.rds.default"}[mutation.kind]
    refused = envoy.total(f"{counter}.update_rejected")
    accepted = envoy.total(f"{counter}.update_success")
    server.snapshot = changed(good, mutation)
    server.version += 1
    eventually(
        lambda: (
            envoy.total(f"{counter}.update_rejected") > refused or envoy.total(f"{counter}.update_success") > accepted
        ),
        said=lambda: mutation.name,
    )
    answer = REFUSES if envoy.total(f"{counter}.update_rejected") > refused else ACCEPTS
    server.snapshot = good
    server.version += 1
    wanted = envoy.total(f"{counter}.update_success")
    eventually(lambda: envoy.total(f"{counter}.update_success") > wanted, said=lambda: mutation.name)
    return answer


def test_who_says_what_is_wrong(workplace: Path) -> None:
    """Each has the answer of the table, and nothing that a live Envoy refuses or ignores passes both of our looks."""
    plain, faults = mesh_of()
    assert plain is not None, faults
    port, admin, egress = free_port(), free_port(), free_port()
    client = RegistryClient(addresses=(f"127.0.0.1:{port}",))
    mesh = Mesh(registry=client, egress=Listen(port=egress), admin=Admin(port=admin))
    configuration = Configuration(mesh, plain.callers)
    good = compile_mesh(configuration, Catalog())
    rows: list[tuple[Mutation, str, Answer, Answer | None]] = []
    with (
        envoy_validator(binary(), FILES, timeout=600) as validator,
        mesh_server(good, {"user": [1]}, port) as server,
        envoy_of(workplace, configuration, "web") as envoy,
    ):
        for mutation in MUTATIONS:
            defined, _ = mesh_of(mutation.definition)
            definition = "" if not mutation.definition else ACCEPTS if defined else REFUSES
            live = None if mutation.live is None else polled(server, envoy, mutation, good)
            rows.append((mutation, definition, validated(changed(good, mutation), validator), live))
    if page := os.environ.get("ANSWERS_PAGE"):
        Path(page).write_text(table(rows))
    assert [
        (mutation.name, validation, live)
        for mutation, _, validation, live in rows
        if (validation, live) != (mutation.validation, mutation.live)
    ] == []
    passed = [(mutation, definition) for mutation, definition, validation, _ in rows if validation == ACCEPTS]
    assert [mutation.name for mutation, definition in passed if definition == ACCEPTS] == []
    assert [mutation.name for mutation, definition in passed if not definition] == list(UNSAID)
    assert table(rows) in PAGE.read_text()


UNSAID: Mapping[str, str] = {
    "two thresholds of one priority": "the compiler writes one",
    "a file of authorities that is not there": "it is on the machines of Envoys, and not where the proof runs",
    "a poll each 5 ms": "the mesh's refresh_delay is 10ms at least",
    "a setting of a filter that is not in the chain": "the compiler puts what its routes set into the chain",
    "metadata to match in a cluster without subsets": "a version makes its subsets",
    "a hash policy in a cluster that does not hash": "sticky makes both",
    "two virtual hosts of one name": "a dependency's name is there once",
}
"""What the proof accepts and no definition can say, with the reason."""


def table(rows: list[tuple[Mutation, str, Answer, Answer | None]]) -> str:
    """Return the answers as a table."""
    lines = [
        "| what is wrong | definitions | `--mode validate` | live Envoy |",
        "|---|---|---|---|",
    ]
    for mutation, definition, validation, live in rows:
        unsaid = f"cannot say it: {UNSAID[mutation.name]}" if mutation.name in UNSAID else "cannot say it"
        lines.append(f"| {mutation.name} | {definition or unsaid} | {validation} | {live or 'not asked'} |")
    return "\n".join([*lines, ""])
