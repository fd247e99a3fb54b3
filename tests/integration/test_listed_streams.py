"""Clients of gRPC streams: how registries list them, what they reject, and what they may ask for."""

from pathlib import Path

import grpc
import pytest
from harness.access import bearer, first_token, new_token
from harness.postgres import Postgres
from harness.process import eventually, free_port
from harness.registry import Registry, registry
from harness.xds_stream import XdsStream, streams_to


def listed(served: Registry, **query: str) -> list[dict[str, object]]:
    """Return the subscribers that a registry lists."""
    subscribers: list[dict[str, object]] = served.client.get("/v1/subscribers", params=query).json()["subscribers"]
    return subscribers


def state_of(served: Registry, service: str) -> object:
    """Return the state of the only subscriber of a service; None: it has none."""
    states = [each["state"] for each in listed(served, service=service)]
    return states[0] if states else None


def events_of(served: Registry, kind: str) -> list[dict[str, object]]:
    """Return the events of a kind."""
    events: list[dict[str, object]] = served.client.get("/v1/events", params={"kind": kind}).json()["events"]
    return events


def test_a_stream_is_listed_with_what_it_rejects(server: Postgres, workplace: Path) -> None:
    """Current by its ACK, rejected in its own words, healed by the next version, and gone when it ends."""
    database = server.migrated_database()
    port = free_port()
    with (
        registry(database, workplace, xds_listen=f"127.0.0.1:{port}") as served,
        streams_to(f"127.0.0.1:{port}") as channel,
    ):
        served.register("shop", "10.0.0.1:80")
        stream = XdsStream(channel, "i-1")
        stream.ask("shop")
        assert stream.hear() == {"shop": 1}
        stream.accept(["shop"])
        eventually(lambda: state_of(served, "shop") == "current", within=10)
        (subscriber,) = listed(served, service="shop")
        assert (subscriber["api"], subscriber["envoy"], subscriber["held"]) == ("grpc", "envoy 1.40.0", True)
        served.register("shop", "10.0.0.2:80")
        assert stream.hear() == {"shop": 2}
        stream.reject(["shop"], "malformed IP address: 300.0.0.1")
        eventually(lambda: state_of(served, "shop") == "rejected", within=10)
        (subscriber,) = listed(served, node="i-1")
        assert subscriber["error"] == "malformed IP address: 300.0.0.1"
        assert subscriber["rejected_version"] == subscriber["current_version"]
        said = served.client.get("/v1/verdict").text
        assert "refuses version" in said
        assert "of shop: malformed IP address: 300.0.0.1" in said
        words = "i-1 at 127.0.0.1 refuses version"
        explained = served.client.get("/v1/services/shop/endpoints/10.0.0.1:80/explain").json()
        assert any(line.startswith(words) for line in explained["because"])
        eventually(lambda: bool(events_of(served, "update_rejected")), within=10)
        (event,) = events_of(served, "update_rejected")
        assert event["version"] == subscriber["current_version"]
        assert str(event["reason"]).startswith(words)
        assert 'registry_xds_nacks_total{type="endpoints"} 1.0' in served.client.get("/metrics").text
        served.register("shop", "10.0.0.3:80")
        assert stream.hear() == {"shop": 3}
        stream.accept(["shop"])
        eventually(lambda: state_of(served, "shop") == "current", within=10)
        metrics = served.client.get("/metrics").text
        assert 'registry_propagation_seconds_count{way="stream"} 1.0' in metrics
        assert 'registry_xds_streams{client="envoy",method="StreamAggregatedResources"} 1.0' in metrics
        stream.end()
        eventually(lambda: state_of(served, "shop") is None, within=10)


def test_a_stream_is_admitted_and_ended_by_its_credential(server: Postgres, workplace: Path) -> None:
    """Nothing without one; one name of two where it has a grant for one; and the end when it is revoked."""
    database = server.migrated_database()
    port = free_port()
    with (
        registry(database, workplace, auth="on", xds_listen=f"127.0.0.1:{port}") as served,
        streams_to(f"127.0.0.1:{port}") as channel,
    ):
        admin = first_token(database)
        served.client.headers.update(bearer(admin))
        eventually(lambda: served.client.get("/v1/tokens").status_code == 200, within=10)
        made = new_token(served, admin, "web", {"verbs": ["discover"], "services": ["shop"]})
        served.register("shop", "10.0.0.1:80")
        stranger = XdsStream(channel, "i-0")
        stranger.ask("shop")
        with pytest.raises(grpc.RpcError) as refused:
            stranger.hear()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert refused.value.details() == "the verb discover needs a credential, and none was sent"
        stream = XdsStream(channel, "i-1", made["token"])
        stream.ask("shop", "cart")
        assert stream.hear() == {"shop": 1, "cart": 0}
        words = "no grant of token:web allows the verb discover for the service cart"
        assert stream.errors() == {"cart": words}
        stream.accept(["shop", "cart"])
        eventually(lambda: state_of(served, "cart") == "stuck", within=10)
        assert words in str(listed(served, service="cart")[0]["reason"])
        assert served.client.delete(f"/v1/tokens/{made['id']}").status_code < 300
        with pytest.raises(grpc.RpcError) as ended:
            stream.hear()
        assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "revoked" in str(ended.value.details())
