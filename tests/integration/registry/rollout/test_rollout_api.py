"""The roll-outs over the API: how far they are, and orders to them."""

from pathlib import Path

import pytest
from harness.mesh_rollout import Stage, dependency
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import registry


def test_an_operator_pauses_resumes_and_promotes(server: Postgres, migrated: str, tmp_path: Path) -> None:
    """Each order is refused where there is nothing to do, and is in the history of its services and in the audit."""
    stage = Stage(migrated, ["web"])
    with registry(migrated, tmp_path) as process:
        client = process.client
        nothing = {"revision": 0, "shares": {}, "rollouts": [], "gateways": [], "gateways_refused": []}
        assert client.get("/v1/mesh/rollout").json() == nothing
        stage.apply(dependency("user"))
        poll = {
            "node": {"id": "e1", "cluster": "web"},
            "type_url": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        }
        assert client.post("/v3/discovery:clusters", json=poll).status_code == 200
        stage.apply(dependency("cart", cluster="cart"), share=99.0)
        document = client.get("/v1/mesh/rollout").json()
        (rollout,) = document["rollouts"]
        assert (document["revision"], document["shares"], rollout["node_cluster"]) == (2, {"web": 99.0}, "web")
        assert (rollout["step"], rollout["steps"], rollout["share"], rollout["state"]) == (
            1,
            [1, 2, 3],
            99.0,
            "waiting",
        )
        eventually(lambda: bool(client.get("/v1/mesh/rollout").json()["rollouts"][0]["awaited"]), within=5)
        (rollout,) = client.get("/v1/mesh/rollout").json()["rollouts"]
        assert (rollout["awaited"][0]["node_id"], rollout["awaited_count"], rollout["deadline"]) == ("e1", 1, 60.0)
        path = "/v1/mesh/revisions"
        for number, order in ((1, "pause"), (1, "promote"), (3, "resume")):
            refused = client.post(f"{path}/{number}/{order}", json={})
            assert (refused.status_code, str(number) in refused.json()["detail"]) == (422, True)
        paused = client.post(f"{path}/2/pause", json={"reason": "lunch"})
        assert (paused.status_code, paused.json()) == (200, {"revision": 2, "nodes": ["web"]})
        (rollout,) = client.get("/v1/mesh/rollout").json()["rollouts"]
        assert (rollout["state"], rollout["paused_reason"]) == ("paused", "lunch")
        assert client.post(f"{path}/2/resume", content=b"").json()["nodes"] == ["web"]
        assert client.post(f"{path}/2/promote", json={"reason": "well"}).json()["nodes"] == ["web"]
        assert {row["share"] for row in client.get("/v1/mesh/rollout").json()["rollouts"]} == {0.0, 99.0}
        history = client.get("/v1/events?service=web").json()["events"]
        kinds = {"mesh_paused", "mesh_resumed", "mesh_promoted"}
        assert {each["kind"] for each in history} >= kinds
        query = "SELECT action, decision FROM audit WHERE action LIKE 'mesh%'"
        noted = {(kind, decision) for kind in kinds for decision in ("allowed", "failed")}
        eventually(lambda: {tuple(row) for row in server.execute(query, url=migrated)} == noted, within=10)


@pytest.mark.parametrize("body", [b"{", b'{"why": 1}', b"[]"])
def test_a_bad_order_is_refused(shared_registry: object, body: bytes) -> None:
    """With what is wrong about it."""
    client = shared_registry.client  # type: ignore[attr-defined]
    assert client.post("/v1/mesh/revisions/1/pause", content=body).status_code in (400, 422)
