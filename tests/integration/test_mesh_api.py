"""Applying, rolling back and reading the mesh configuration, through a real registry."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.access import bearer, first_token, new_token
from harness.envoy import binary
from harness.operator import registryctl
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

FILES = {
    "mesh.yaml": "environment: test\n",
    "services/web.yaml": "service: web\ndependencies:\n- service: user\n",
    "services/user.yaml": "service: user\n",
}
WEB_ALONE = {"verbs": ["read"], "services": ["web"]}
WITH_CART = {**FILES, "services/web.yaml": "service: web\ndependencies:\n- service: user\n- service: cart\n"}


@pytest.fixture
def pair(database: str, workplace: Path) -> Iterator[tuple[Registry, Registry]]:
    """Two registries on one database, of which the first has an Envoy."""
    with (
        registry(database, workplace, envoy_binary=binary()) as first,
        registry(database, workplace) as second,
    ):
        yield first, second


def apply(process: Registry, files: dict[str, str], status: int = 201, **fields: Any) -> dict[str, Any]:
    """Apply files, and return the answer."""
    dry = {"dry_run": "true"} if fields.pop("dry_run", False) else {}
    answer = process.client.post("/v1/mesh/revisions", json={"files": files, **fields}, params=dry)
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    return document


def poll(process: Registry, kind: str, version: str = "", cluster: str = "web", hold: float = 0) -> httpx.Response:
    """Poll as an Envoy."""
    names = {"resource_names": ["default"]} if kind == "routes" else {}
    body = {"version_info": version, "node": {"id": f"i-{cluster}", "cluster": cluster}, **names}
    headers = {"x-envoy-expected-rq-timeout-ms": str(int(hold * 1000))} if hold else {}
    return process.client.post(f"/v3/discovery:{kind}", json=body, headers=headers)


def clusters(process: Registry, cluster: str = "web") -> list[str]:
    """Return the names of the clusters that an Envoy is served."""
    return [resource["name"] for resource in poll(process, "clusters", cluster=cluster).json()["resources"]]


@pytest.mark.envoy
def test_a_repository_is_applied_served_and_rolled_back(pair: tuple[Registry, Registry]) -> None:
    """From nothing to two revisions and back, seen by both processes, with who, what and why."""
    first, second = pair
    assert clusters(first) == []
    plan = apply(first, FILES, 200, dry_run=True)
    assert (plan["base"], [node["node"] for node in plan["nodes"]]) == (0, ["user", "web"])
    assert first.client.get("/v1/mesh/revisions").json() == {"revisions": [], "next": None}
    assert first.client.get("/v1/mesh/revisions/current").status_code == 404
    applied = apply(first, FILES, reason="a first one", commit="abc", base=0)
    assert (applied["number"], applied["nodes"], applied["proof"]["by"]) == (1, ["user", "web"], "registry")
    assert applied["proof"]["envoy"][0].count(".") == 2
    assert clusters(first) == ["user"]
    eventually(lambda: clusters(second) == ["user"], within=2)
    both = [poll(process, "routes").json() for process in pair]
    assert both[0] == both[1]
    assert both[0]["version_info"].endswith(":1.1")
    changed = apply(first, WITH_CART, reason="cart", base=1)
    assert changed["nodes"] == ["web"]
    assert [warning["file"] for warning in changed["warnings"]] == ["services/web.yaml"]
    assert clusters(first) == ["cart", "user"]
    same = apply(first, WITH_CART, reason="nothing changes")
    assert (same["number"], same["nodes"]) == (3, [])
    back = first.client.post("/v1/mesh/revisions/1/rollback", json={"reason": "web is slow"})
    assert (back.status_code, back.json()["number"], back.json()["content"]) == (201, 4, 1)
    assert back.json()["nodes"] == ["web"]
    listed = second.client.get("/v1/mesh/revisions", params={"limit": 3}).json()
    assert [(each["number"], each["reason"]) for each in listed["revisions"]] == [
        (4, "web is slow"),
        (3, "nothing changes"),
        (2, "cart"),
    ]
    assert (
        second.client.get("/v1/mesh/revisions", params={"before": listed["next"]}).json()["revisions"][0]["base"] == 0
    )
    assert second.client.get("/v1/mesh/revisions/current").json()["files"] == FILES
    assert second.client.get("/v1/mesh/revisions/2").json()["files"] == WITH_CART
    events = second.client.get("/v1/events", params={"service": "web"}).json()["events"]
    assert {event["kind"] for event in events} == {"mesh_applied", "mesh_rolled_back"}
    assert any("web is slow" in event["reason"] for event in events)


@pytest.mark.envoy
def test_faults_are_all_told_with_their_places(pair: tuple[Registry, Registry]) -> None:
    """422 as a problem document with each fault, and nothing is stored or served."""
    first, _ = pair
    bad = {
        **FILES,
        "services/web.yaml": "service: web\ndependencies:\n- service: user\n  timout: 3s\n",
        "services/user.yaml": "service: user\nprovides: {protocol: spdy}\n",
    }
    problem = apply(first, bad, 422)
    assert problem["title"] == "Faults in the definitions"
    places = {(fault["file"], fault["line"]) for fault in problem["faults"]}
    assert places == {("services/web.yaml", 4), ("services/user.yaml", 2)}
    assert any("timeout" in fault["fix"] for fault in problem["faults"])
    assert apply(first, bad, 422, dry_run=True)["faults"] == problem["faults"]
    for document, status in (("{", 400), ("[]", 422), ('{"files": 1}', 422), ('{"files": {}, "unknown": 1}', 422)):
        refused = first.client.post("/v1/mesh/revisions", content=document)
        assert (refused.status_code, refused.headers["content-type"]) == (status, "application/problem+json"), document
    assert first.client.get("/v1/mesh/revisions").json()["revisions"] == []


@pytest.mark.envoy
def test_two_people_apply_at_once(pair: tuple[Registry, Registry]) -> None:
    """The second one gets 409 with what to do; without a base the last one wins, as one after the other."""
    first, second = pair
    apply(first, FILES, base=0)
    problem = apply(second, WITH_CART, 409, base=0, unproven=True)
    assert (problem["title"], "registryctl mesh diff 0 1" in problem["detail"]) == (
        "Another revision came between",
        True,
    )
    assert apply(second, WITH_CART, 409, base=0, unproven=True, dry_run=True)["status"] == 409
    assert apply(second, WITH_CART, unproven=True)["base"] == 1


@pytest.mark.envoy
def test_what_nothing_has_proven_is_refused(pair: tuple[Registry, Registry]) -> None:
    """A registry without an Envoy takes the sender's proof if it is of the same bytes; else it must be asked for."""
    first, second = pair
    refused = apply(second, FILES, 422)
    assert "REGISTRY_ENVOY_BINARY" in refused["faults"][0]["message"]
    wrong = {"sha256": "0" * 64, "envoy": ["1.40.0"]}
    assert "compiled" in apply(second, FILES, 422, proof=wrong)["faults"][0]["message"]
    unproven = apply(second, FILES, unproven=True)
    assert unproven["proof"] == {"by": "nobody", "envoy": [], "unproven_gateways": []}
    right = {"sha256": unproven["sha256"], "envoy": ["1.36.2", "1.40.0"]}
    proof = apply(second, FILES, proof=right)["proof"]
    assert (proof["by"], proof["envoy"]) == ("sender", ["1.36.2", "1.40.0"])
    assert apply(first, FILES, proof=wrong)["proof"]["by"] == "registry"


@pytest.mark.envoy
def test_a_definition_is_not_taken_from_envoys_that_poll_for_it(pair: tuple[Registry, Registry]) -> None:
    """Plan and apply name the Envoys; it is removed when that is asked for. A rollback keeps it, and says so."""
    first, second = pair
    apply(first, FILES, unproven=True)
    api = {**FILES, "services/api.yaml": "service: api\ndependencies:\n- service: user\n"}
    apply(first, api, unproven=True)
    version = poll(first, "clusters", cluster="api").json()["version_info"]
    for dry in (True, False):
        problem = apply(first, FILES, 422, unproven=True, dry_run=dry)
        assert "i-api" in problem["faults"][0]["message"]
        assert "--allow-removal api" in problem["faults"][0]["fix"]
    kept = first.client.post("/v1/mesh/revisions/1/rollback", json={"reason": "3 a.m."}).json()
    assert (kept["kept"], kept["in_doubt"], kept["nodes"]) == (["api"], [], [])
    assert poll(first, "clusters", version, cluster="api").status_code == 304
    removed = apply(first, FILES, unproven=True, allow_removal=["api"])
    assert removed["nodes"] == ["api"]
    served = "/v1/mesh/services/api/resources/routes"
    eventually(lambda: first.client.get(served).json()["resources"] == [], within=2)
    eventually(lambda: second.client.get(served).json()["resources"] == [], within=2)


@pytest.mark.envoy
def test_effective_values_bootstrap_and_served_bytes(pair: tuple[Registry, Registry]) -> None:
    """Each by the name of the service; 404 says what is missing."""
    first, second = pair
    assert first.client.get("/v1/mesh/services/web").status_code == 404
    apply(first, FILES)
    shown = second.client.get("/v1/mesh/services/web").json()
    assert [dependency["name"] for dependency in shown["dependencies"]] == ["user"]
    for port in (80, 81):
        first.register("user", f"10.0.0.5:{port}")
    warnings = [fault["message"] for fault in apply(first, FILES, 200, dry_run=True)["warnings"]]
    assert any("cannot eject at today's size: of user (2 endpoints)" in message for message in warnings), warnings
    bootstrap = second.client.get("/v1/mesh/services/web/bootstrap").json()
    assert bootstrap["node"]["cluster"] == "web"
    eventually(lambda: second.client.get("/v1/mesh/services/web/resources/routes").status_code == 200, within=2)
    served = second.client.get("/v1/mesh/services/web/resources/routes").json()
    assert served["resources"] == poll(second, "routes").json()["resources"]
    for path in ("services/nobody", "services/nobody/bootstrap", "services/nobody/resources/routes", "revisions/9"):
        assert first.client.get(f"/v1/mesh/{path}").status_code == 404
    assert first.client.get("/v1/mesh/services/web/resources/secrets").status_code == 422


def test_a_team_does_not_change_what_all_services_share(migrated: str, workplace: Path) -> None:
    """A port of mesh.yaml is in every bootstrap and in no resource: neither apply, plan nor rollback changes it."""
    admin = first_token(migrated)
    shared = {**FILES, "mesh.yaml": "environment: test\nadmin: {port: 9911}\n"}
    commented = {**WITH_CART, "mesh.yaml": "# ours\nenvironment: test\n"}
    with registry(migrated, workplace, auth="on") as process:
        grants = ({"verbs": ["configure", "read"], "services": ["web", "user"]},)
        of_team = bearer(new_token(process, admin, "team", *grants)["token"])
        of_all = bearer(new_token(process, admin, "all", {"verbs": ["configure"], "services": ["*"]})["token"])

        def send(headers: dict[str, str], path: str = "", **document: Any) -> int:
            answer = process.client.post(f"/v1/mesh/revisions{path}", json=document, headers=headers)
            return answer.status_code

        assert send(of_team, files=shared, unproven=True) == 403
        assert send(of_all, files=shared, unproven=True) == 201
        assert send(of_all, files=FILES, unproven=True) == 201
        assert send(of_team, files=shared, unproven=True) == 403
        assert send(of_team, "?dry_run=true", files=shared, unproven=True) == 403
        assert send(of_team, "/1/rollback", reason="x") == 403
        assert send(of_team, files=commented, unproven=True) == 201
        assert send(of_team, "/2/rollback", reason="x") == 201
        look_as(process, of_team, bearer(admin))


def look_as(process: Registry, of_team: dict[str, str], of_admin: dict[str, str]) -> None:
    """Look at the console as a reader of web and user, and as one of everything: links lead where they may go."""

    def text(path: str, headers: dict[str, str]) -> str:
        answer = process.client.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.text

    for headers, everything in ((of_team, False), (of_admin, True)):
        mesh = text("/ui/mesh", headers)
        assert ('id="partial"' in mesh, "served to the services that you may read" in mesh) == (not everything,) * 2
        web = text("/ui/mesh/services/web", headers)
        assert ("services/web.yaml:3" in web, "?file=services" in web) == (True, everything)
        assert "/ui/mesh/services/user" in web
    other = bearer(new_token(process, of_admin["authorization"].split()[1], "web", WEB_ALONE)["token"])
    assert "/ui/mesh/services/user" not in text("/ui/mesh/services/web", other)


def test_bodies_that_were_changed_by_hand_are_stored_anew(server: Postgres, workplace: Path) -> None:
    """By an apply of the same files; a rollback says that it cannot serve them."""
    url = server.migrated_database()
    spoilt = "SELECT FROM mesh_bodies WHERE encode(sha256(body), 'hex') <> sha256"
    with registry(url, workplace) as process:
        apply(process, FILES, unproven=True)
        apply(process, WITH_CART, unproven=True)
        server.execute("UPDATE mesh_bodies SET body = 'x'", url=url)
        refused = process.client.post("/v1/mesh/revisions/1/rollback", json={"reason": "3 a.m."})
        assert (refused.status_code, "of web are missing" in refused.json()["detail"]) == (503, True)
        apply(process, FILES, unproven=True)
        apply(process, WITH_CART, unproven=True)
        assert server.execute(spoilt, url=url) == []
        assert process.client.post("/v1/mesh/revisions/1/rollback", json={"reason": "3 a.m."}).status_code == 201


@pytest.mark.envoy
def test_a_repository_may_be_larger_than_other_requests(pair: tuple[Registry, Registry]) -> None:
    """Up to 16 MiB, and polls are answered meanwhile; beyond it 413."""
    first, _ = pair
    padding = "# " + "x" * 900_000 + "\n"
    large = {**FILES, **{f"services/s{number}.yaml": f"{padding}service: s{number}\n" for number in range(3)}}
    assert apply(first, large, unproven=True)["number"] == 1
    assert poll(first, "clusters").status_code == 200
    refused = first.client.post("/v1/mesh/revisions", content=json.dumps({"files": {"a": "x" * 17_000_000}}))
    assert (refused.status_code, "16777216" in refused.json()["detail"]) == (413, True)
    assert first.client.post("/v1/mesh/revisions/1/rollback", content=b"x" * 1_100_000).status_code == 413


GATEWAY = (
    "gateway: staging\nlisten: {port: 50051, protocol: http2}\n"
    "select: {metadata: {protocol: grpc}}\nhosts: '{service}.staging.example'\n"
)


@pytest.mark.envoy
def test_a_gateway_follows_the_catalog(pair: tuple[Registry, Registry]) -> None:
    """A service that it selects gets a cluster within seconds of its registration, in the same revision."""
    first, second = pair
    apply(first, {**FILES, "gateways/staging.yaml": GATEWAY})
    first.register("greeter", "10.0.0.7:80", metadata={"protocol": "grpc"})
    eventually(lambda: services_of_gateway(first) == services_of_gateway(second) == ["greeter"], within=15)
    assert first.client.get("/v1/mesh/revisions/current").json()["number"] == 1


def services_of_gateway(process: Registry) -> list[str]:
    """Return the services of the gateway, as this process serves them."""
    answer = process.client.get("/v1/mesh/services/staging/resources/clusters").json()
    return [resource["name"] for resource in answer.get("resources", ())]


def test_a_gateway_is_compiled_again_by_a_registry_without_an_envoy(
    server: Postgres, migrated: str, workplace: Path
) -> None:
    """It keeps services without endpoints, says that it is unproven, and says why where it cannot be compiled."""
    with registry(migrated, workplace, removal_delay=0.1) as process:
        process.register("greeter", "10.0.0.7:80", metadata={"protocol": "grpc"})
        files = {**FILES, "gateways/staging.yaml": GATEWAY}
        proof = {"sha256": apply(process, files, unproven=True)["sha256"], "envoy": ["1.40.0"]}
        assert apply(process, files, proof=proof)["proof"]["by"] == "sender"
        assert services_of_gateway(process) == ["greeter"]
        # A rollback to it compiles the same again, which is as proven as it was.
        assert process.client.post("/v1/mesh/revisions/2/rollback", json={"reason": "x"}).status_code == 201
        check_unproven(process, [])
        refused = process.client.delete("/v1/mesh/catalog/greeter")
        assert (refused.status_code, "has 1 endpoints" in refused.json()["detail"]) == (422, True)
        process.register("other", "10.0.0.8:80", metadata={"protocol": "grpc"})
        eventually(lambda: services_of_gateway(process) == ["greeter", "other"], within=15)
        check_unproven(process, ["staging"])
        leave_and_stay(process)
        assert apply(process, files, unproven=True)["nodes"] == []
        roll_gateway_back(process)
        remove_from_gateway(process, server, migrated)
        fail_to_compile(process, server, migrated)


def check_unproven(process: Registry, gateways: list[str]) -> None:
    """Check what documents, command, console and metric say of gateways that no Envoy has accepted."""
    current = process.client.get("/v1/mesh/revisions/current").json()
    assert (current["proof"]["by"], current["proof"]["unproven_gateways"]) == ("sender", gateways)
    rollout = process.client.get("/v1/mesh/rollout").json()
    assert [each["node_cluster"] for each in rollout["gateways"] if not each["envoy"]] == gateways
    history = registryctl(process.url, "mesh", "history", "-n", "1").out
    assert ("Envoy 1.40.0, but for staging" in history) == bool(gateways)
    shown = registryctl(process.url, "mesh", "show", "staging").out
    assert ("staging: compiled again since revision 3, for other services, and unproven" in shown) == bool(gateways)
    assert ('id="unproven"' in process.client.get("/ui/mesh").text) == bool(gateways)
    eventually(lambda: metric(process, "registry_mesh_gateways_unproven") == len(gateways), within=15)
    eventually(lambda: ("mesh-proven" in troubles(process)) == bool(gateways), within=15)


def leave_and_stay(process: Registry) -> None:
    """Deregister the only endpoint of a service, and have the gateway compiled again."""

    def kept() -> Any:
        listed = process.client.get("/v1/mesh/catalog", params={"limit": 1}).json()
        return [(each["service"], each["endpoints"], each["metadata"]) for each in listed["services"]]

    assert process.client.delete("/v1/services/greeter/endpoints/10.0.0.7:80").status_code == 204
    eventually(lambda: kept() == [("greeter", 0, {"protocol": ["grpc"]})], within=15)
    process.register("third", "10.0.0.9:80", metadata={"protocol": "grpc"})
    eventually(lambda: services_of_gateway(process) == ["greeter", "other", "third"], within=15)


def roll_gateway_back(process: Registry) -> None:
    """Roll back to the revision of before the other services; the gateway has all of them at once."""
    back = process.client.post("/v1/mesh/revisions/1/rollback", json={"reason": "3 a.m."}).json()
    assert (back["nodes"], back["kept"], back["warnings"]) == ([], [], [])
    assert services_of_gateway(process) == ["greeter", "other", "third"]
    current = process.client.get("/v1/mesh/revisions/current").json()
    assert (current["content"], current["proof"]["unproven_gateways"]) == (1, ["staging"])


def remove_from_gateway(process: Registry, server: Postgres, url: str) -> None:
    """Remove a service that has no endpoints."""
    assert process.client.delete("/v1/mesh/catalog/greeter", params={"reason": "gone"}).status_code == 204
    of_gateway = (
        "SELECT name FROM mesh_contents WHERE kind = 'clusters' AND name <> '*' AND until IS NULL"
        " AND node_cluster = 'staging' ORDER BY name"
    )
    eventually(lambda: server.execute(of_gateway, url=url) == [("other",), ("third",)], within=15)
    assert process.client.delete("/v1/mesh/catalog/greeter").status_code == 404
    events = process.client.get("/v1/events", params={"service": "greeter"}).json()["events"]
    assert "gone" in next(event["reason"] for event in events if event["kind"] == "mesh_forgotten")


def fail_to_compile(process: Registry, server: Postgres, url: str) -> None:
    """Spoil the files of the revision in force; the next change of the catalog cannot be compiled."""
    assert refused_gateways(process) == []
    server.execute("UPDATE mesh_revisions SET files = 'spoilt' WHERE number = content", url=url)
    process.register("fourth", "10.0.0.10:80", metadata={"protocol": "grpc"})
    eventually(lambda: "the compiler failed" in str(refused_gateways(process)), within=15)
    eventually(lambda: metric(process, "registry_mesh_gateways_refused") == 1, within=15)
    eventually(lambda: "mesh-gateways" in troubles(process), within=15)
    back = process.client.post("/v1/mesh/revisions/2/rollback", json={"reason": "3 a.m."})
    assert (back.status_code, "served as it was compiled for the services of then" in back.text) == (201, True)
    eventually(lambda: refused_gateways(process) != [], within=15)
    assert "the compiler failed" in registryctl(process.url, "mesh", "rollout").out
    assert 'id="gateways-refused"' in process.client.get("/ui/mesh").text


def refused_gateways(process: Registry) -> Any:
    """Return the gateways and services that are refused, with reasons."""
    return process.client.get("/v1/mesh/rollout").json()["gateways_refused"]


@pytest.mark.envoy
@pytest.mark.proof
def test_one_refused_service_holds_back_neither_gateway_nor_neighbours(migrated: str, workplace: Path) -> None:
    """An Envoy that refuses one cluster: the service is left out and named, and all others are served."""
    picky = workplace / "picky-envoy"
    picky.write_text(
        f'#!/bin/sh\nif [ "$1" = --mode ] && grep -q \'"poison"\\|poison#\' "$4"; then\n'
        f'  echo "error initializing configuration \'$4\': no poison, please"; exit 1\nfi\nexec {binary()} "$@"\n'
    )
    picky.chmod(0o755)
    second = "listen: {port: 50052}\nselect: {metadata: {tier: web}}\n"
    with registry(migrated, workplace, envoy_binary=str(picky)) as process:
        grpc = {"protocol": "grpc"}
        process.register("greeter", "10.0.0.7:80", metadata=grpc)
        apply(process, {**FILES, "gateways/staging.yaml": GATEWAY, "gateways/tier.yaml": second})
        assert services_of_gateway(process) == ["greeter"]
        process.register("poison", "10.0.0.8:80", metadata=grpc)
        process.register("other", "10.0.0.9:80", metadata=grpc)
        process.register("front", "10.0.0.10:80", metadata={"tier": "web"})
        eventually(lambda: services_of_gateway(process) == ["greeter", "other"], within=30)
        eventually(lambda: clusters(process, "tier") == ["front"], within=30)
        (refusal,) = refused_gateways(process)
        assert (refusal["gateway"], refusal["service"], "no poison" in refusal["reason"]) == ("staging", "poison", True)
        # Nor does it hold back an apply, which warns of it.
        applied = apply(process, {**WITH_CART, "gateways/staging.yaml": GATEWAY, "gateways/tier.yaml": second})
        assert "poison stays left out" in str(applied["warnings"])
        assert (applied["nodes"], services_of_gateway(process)) == (["web"], ["greeter", "other"])
        eventually(lambda: refused_gateways(process) != [], within=30)
        effective = process.client.get("/v1/mesh/services/staging").json()["dependencies"]
        assert [each["name"] for each in effective] == ["greeter", "other"]
        shown = registryctl(process.url, "mesh", "show", "staging").out
        assert "staging: poison is served as it was, or not yet, because it is refused: " in shown
        assert "service poison, for " in process.client.get("/v1/verdict").text
        assert "/ui/services/poison" in process.client.get("/ui/mesh").text
        assert process.client.delete("/v1/services/poison/endpoints/10.0.0.8:80").status_code == 204
        eventually(lambda: process.client.delete("/v1/mesh/catalog/poison").status_code == 204, within=15)
        eventually(lambda: refused_gateways(process) == [], within=30)


def metric(process: Registry, name: str) -> float:
    """Return the value of a metric without labels."""
    lines = process.client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[-1])


def troubles(process: Registry) -> set[str]:
    """Return the ids of findings that are not well."""
    findings = process.client.get("/v1/verdict").json()["findings"]
    return {finding["id"] for finding in findings if finding["status"] != "ok"}
