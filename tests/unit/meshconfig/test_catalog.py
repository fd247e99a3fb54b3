"""The catalog of gateways: metadata of endpoints as texts, joined over the endpoints of a service."""

from meshconfig.catalog import CatalogBuilder
from meshconfig.resource import Catalog


def test_metadata_of_all_endpoints_is_joined() -> None:
    """Values are texts in order; gRPC services are announced as a list or with commas, whatever the order."""
    builder = CatalogBuilder()
    builder.add("shop", {"protocol": "grpc", "canary": True, "grpc_services": ["b.B", "a.A"], "rack": None})
    builder.add("shop", {"protocol": "http", "weight": 2, "grpc_services": "a.A, c.C"})
    builder.add("web", {})
    assert builder.build() == Catalog(
        {
            "shop": {
                "protocol": ("grpc", "http"),
                "canary": ("true",),
                "grpc_services": ("a.A", "a.A, c.C", "b.B"),
                "rack": (),
                "weight": ("2",),
            },
            "web": {},
        },
        {"shop": ("a.A", "b.B", "c.C"), "web": ()},
    )
