"""Envoy's retry conditions, as texts of other meshes list them (Envoy: x-envoy-retry-on, x-envoy-retry-grpc-on)."""

RETRY_CONDITIONS = frozenset(
    {
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    }
)
"""The conditions that mean something alone; the others need a list of status codes or headers beside them."""
