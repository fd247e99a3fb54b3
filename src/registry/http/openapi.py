"""The OpenAPI document beside its routes: what concerns the whole API, and the schemas of what they read and answer."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from registry.http.browser_session import PLAIN_NAME, SECURE_NAME
from wire.problem import CONTENT_TYPE, Problem

DESCRIPTION = """Service registry for Envoy on ECS and VMs.

Envoy polls `/v3/discovery:endpoints`; registrars send `/v1/heartbeats`; people use the rest. Errors are
RFC 9457 problem documents, except under the drop-in paths, which answer as cookpad/sds and lyft/discovery did.

A client that waits for so many seconds may say it by `Prefer: wait=5` (RFC 7240): where PostgreSQL does not answer, it
gets 503 with the reason a second earlier.
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
    {
        "name": "errands",
        "description": "Questions to Envoys, through registrars: clusters, configuration, log levels, taps.",
    },
    {"name": "mesh", "description": "Revisions of the mesh configuration, their roll-out, and what they compile to."},
    {"name": "subscribers", "description": "The Envoys that poll, and the versions that they hold."},
    {
        "name": "traffic",
        "description": "Who calls whom, how often, how well and how fast, as callers' Envoys count.",
    },
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

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "The ETag is current."}}
"""The OpenAPI of the response to a client that holds the document."""

_documents: set[type[Struct]] = set()
"""Every document that a route refers to; `reference` adds it."""

_EXAMPLES: list[Struct] = []
"""Shown with their schemas: FastAPI leaves null out of the examples beside answers, and these need theirs."""


def show_examples(*examples: Struct) -> None:
    """Show these documents with their schemas, which is needed where they have nulls."""
    _EXAMPLES.extend(examples)


def components() -> dict[str, Any]:
    """Return the JSON Schema of every document that a route refers to, for OpenAPI's components."""
    documents = sorted(_documents, key=lambda document: document.__name__)
    _, schemas = msgspec.json.schema_components(documents, ref_template="#/components/schemas/{name}")
    for example in _EXAMPLES:
        schemas[type(example).__name__]["examples"] = [msgspec.to_builtins(example)]
    # Defaults are tuples, and JSON has lists.
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(schemas))
    _say_items(plain)
    return plain


def _say_items(schema: object) -> None:
    """Say of each array without a rule for its items that they may be anything: linters ask for it."""
    if isinstance(schema, list):
        for part in schema:
            _say_items(part)
    elif isinstance(schema, dict):
        if schema.get("type") == "array":
            schema.setdefault("items", {})
        for part in schema.values():
            _say_items(part)


def reference(document: type[Struct]) -> dict[str, str]:
    """Return the reference to a document's schema, which is among the components from then on."""
    _documents.add(document)
    return {"$ref": f"#/components/schemas/{document.__name__}"}


def body(document: type[Struct], example: object) -> dict[str, Any]:
    """Return the OpenAPI of a request body, with an example."""
    content = {"application/json": {"schema": reference(document), "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def answers(document: type[Struct], description: str, example: object, status: int = 200) -> dict[int | str, Any]:
    """Return the OpenAPI of a successful response; without an example, the document's schema has one."""
    content = {"application/json": {"schema": reference(document), "example": example}}
    return {status: {"description": description, "content": content}}


def problems(*statuses: int, free: bool = False) -> dict[int | str, Any]:
    """Return the OpenAPI of the problems that a route may answer.

    Every route may answer 421, and each that asks the policy 401 and 403, so these need not be named.

    Args:
        statuses: of the problems.
        free: whether the route asks nobody.
    """
    described: Mapping[int, str] = {
        400: "The request cannot be read.",
        401: "No credential was sent, or the one that was is not accepted.",
        403: "Not allowed: the principal may not do this; or sent from elsewhere: a page of another site wrote.",
        404: "There is no such thing.",
        409: "Another instance, or a newer incarnation, owns the endpoint.",
        412: "This process does not know the request on which this one builds; send a whole one.",
        413: "The body is too large.",
        421: "A browser asks under a name that REGISTRY_HOSTS does not have.",
        422: "The request says something impossible, or something that the limits do not allow.",
        429: "There is as much as there may be; Retry-After says when to ask again.",
        503: "PostgreSQL is away, or this process has not read its state yet; Retry-After says when to ask again.",
    }
    content = {CONTENT_TYPE: {"schema": reference(Problem)}}
    asked = {421} if free else {401, 403, 421}
    return {status: {"description": described[status], "content": content} for status in sorted(asked | {*statuses})}
