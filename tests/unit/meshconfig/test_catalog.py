"""The catalog of gateways: metadata of endpoints as texts, joined over the endpoints of a service."""

from meshconfig.catalog import catalog_of, joined
from meshconfig.resource import Catalog

SHOP = (
    {"protocol": "grpc", "canary": True, "grpc_services": ["b.B", "a.A"], "rack": None},
    {"protocol": "http", "weight": 2, "grpc_services": "a.A, c.C"},
)


def test_metadata_of_all_endpoints_is_joined() -> None:
    """Values are texts in order; gRPC services are announced as a list or with commas, whatever the order."""
    assert catalog_of({"shop": joined(SHOP), "web": joined([{}])}) == Catalog(
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


def test_metadata_that_was_stored_is_the_same_again() -> None:
    """The last known metadata of a service without endpoints stands where that of its endpoints stood."""
    once = joined(SHOP)
    assert joined([once]) == once
    assert joined(reversed(SHOP)) == once
