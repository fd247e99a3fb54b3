"""The parts of the OpenAPI document that concern the whole API: its tags, its address, its credentials."""

from typing import Any

from registry.http.browser_session import PLAIN_NAME, SECURE_NAME

DESCRIPTION = """Service registry for Envoy on ECS and VMs.

Envoy polls `/v3/discovery:endpoints`; registrars send `/v1/heartbeats`; people use the rest. Errors are
RFC 9457 problem documents, except under the drop-in paths, which answer as cookpad/sds and lyft/discovery did.
"""

CONTACT = {"name": "The Headcount authors"}

SERVERS = [{"url": "/", "description": "The registry that serves this document."}]

TAGS = [
    {
        "name": "discovery",
        "description": "Polls of Envoy: EDS, CDS, LDS, RDS, held until something changes.",
    },
    {"name": "registration", "description": "What registrars send: endpoints, heartbeats, drains, results of probes."},
    {
        "name": "catalog",
        "description": "Services and endpoints, what operators override, and what they expect.",
    },
    {"name": "history", "description": "What happened to endpoints, and why one gets traffic or not."},
    {"name": "expiry", "description": "What keeps leases from lapsing: the guard, and pauses of operators."},
    {"name": "mesh", "description": "Revisions of the mesh configuration, their roll-out, and what they compile to."},
    {"name": "subscribers", "description": "The Envoys that poll, and the versions that they hold."},
    {"name": "prometheus", "description": "Service discovery for Prometheus."},
    {"name": "access", "description": "Credentials, identities and their grants, logins, and the audit."},
    {"name": "operations", "description": "How this process and the whole registry stand."},
    {"name": "drop-in", "description": "The APIs of cookpad/sds and lyft/discovery, for their clients."},
]
"""The tags of all routes, in the order in which a reader meets them."""

SECURITY_SCHEMES: dict[str, Any] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A static token, or that of a session, which begins with an AWS login or a person's sign-in.",
    },
    "certificate": {
        "type": "mutualTLS",
        "description": "A client certificate of an authority that the registry trusts; its names are the identity.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SECURE_NAME,
        "description": f"A browser's session, which signing in at the console sets; over plain HTTP `{PLAIN_NAME}`.",
    },
}

SECURITY: list[dict[str, list[str]]] = [{"token": []}, {"certificate": []}, {"session": []}, {}]
"""A request brings one credential, or none: an open registry asks for none, and a network may have grants, too."""

PUBLIC: dict[str, Any] = {"security": []}
"""Extends the OpenAPI of a route that reads no credential."""

TEXT: dict[str, Any] = {"schema": {"type": "string"}}
"""The OpenAPI of a body that is plain text."""
