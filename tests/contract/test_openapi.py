"""The OpenAPI document against the registry that runs: what it promises is what is answered."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # published without types
import pytest
import requests
import schemathesis
from fastapi.routing import APIRoute
from harness.registry import Registry
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import BaseSchema, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import BaseRoute

from registry.app import build_app, describe

APP = build_app()
DOCUMENT = describe(APP)
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
NATIVE = {name: found for name, found in OPERATIONS.items() if "drop-in" not in found[2]["tags"]}
REQUESTS = [
    (name, mode)
    for name, (_, _, operation) in OPERATIONS.items()
    for mode in GenerationMode
    # Where nothing is sent but the path, nothing can be wrong.
    if mode.is_positive or operation.keys() & {"parameters", "requestBody"}
]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = settings(
    max_examples=5,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""The same requests in each run, so that more of them say something new only where the document has changed."""
MANY_EXAMPLES = settings(EXAMPLES, max_examples=100)
PLACES = {
    "service": "known",
    "endpoint": "10.0.0.1:80",
    "host": "10.0.0.1:80",
    "ip": "10.0.0.1",
    "repository": "repo",
    "token_id": "abcdefghijklmnop",
    "name": "some-identity",
    "number": "1",
    "kind": "clusters",
    "errand": "5b1d0f6a9c3e7a42",
}
INCARNATIONS = itertools.count(1)


def routes(routes_of_app: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    """Yield every route of the API; those of the console are no operations."""
    for route in routes_of_app:
        if isinstance(route, APIRoute):
            if route.endpoint.__module__.startswith("registry.http."):
                yield route
        elif (included := getattr(route, "original_router", None)) is not None:
            yield from routes(included.routes)


ROUTES = list(routes(APP.routes))


@pytest.fixture(scope="module")
def described(shared_registry: Registry) -> BaseSchema:
    """The document that the registry serves."""
    return schemathesis.openapi.from_url(f"{shared_registry.url}/openapi.json")


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """Connections that no proxy of the environment gets to see."""
    with requests.Session() as found:
        found.trust_env = False
        yield found


FRAMING = {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"}
"""Headers of HTTP itself: a request with a wrong one is no request, and no operation answers it."""


def send(case: Case[Any], session: requests.Session) -> None:
    """Send a generated request, and check its answer; strings of the code are among the names of its headers."""
    for name in [name for name in case.headers or () if name.lower() in FRAMING]:
        del case.headers[name]
    case.call_and_validate(session=session, timeout=20, checks=CHECKS)


@pytest.mark.parametrize(("name", "mode"), REQUESTS)
def test_answers_conform_to_the_document(
    described: BaseSchema, session: requests.Session, name: str, mode: GenerationMode
) -> None:
    """Generated requests, valid and not, get documented statuses, types and bodies, and never a 5xx."""
    generate(described, session, name, mode, EXAMPLES)


@pytest.mark.proof
@pytest.mark.parametrize(("name", "mode"), REQUESTS)
def test_more_answers_conform_to_the_document(
    described: BaseSchema, session: requests.Session, name: str, mode: GenerationMode
) -> None:
    """The same, of twenty times as many requests."""
    generate(described, session, name, mode, MANY_EXAMPLES)


def generate(
    described: BaseSchema, session: requests.Session, name: str, mode: GenerationMode, examples: settings
) -> None:
    """Send generated requests to an operation, and check the answers."""
    method, path, _ = OPERATIONS[name]

    @examples
    @given(case=described[path][method].as_strategy(generation_mode=mode))
    def check(case: Case[Any]) -> None:
        send(case, session)

    check()


@pytest.mark.parametrize("name", [name for name, (_, path, _) in OPERATIONS.items() if "{" in path])
def test_answers_about_what_exists_conform_to_the_document(
    described: BaseSchema, session: requests.Session, shared_registry: Registry, name: str
) -> None:
    """The same holds where the path names an endpoint that is registered."""
    method, path, operation = OPERATIONS[name]
    named = {one["name"]: PLACES[one["name"]] for one in operation["parameters"] if one["in"] == "path"}

    @EXAMPLES
    @given(case=described[path][method].as_strategy(path_parameters=named))
    def check(case: Case[Any]) -> None:
        shared_registry.register("known", "10.0.0.1:80", incarnation=next(INCARNATIONS), repository="repo")
        send(case, session)

    check()


def test_the_stream_of_events_is_documented(shared_registry: Registry, service: str) -> None:
    """Asked for a stream, the history answers with one, which ends when the reader leaves."""
    assert "text/event-stream" in OPERATIONS["list_events"][2]["responses"]["200"]["content"]
    headers = {"accept": "text/event-stream"}
    with shared_registry.client.stream("GET", "/v1/events", params={"service": service}, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        shared_registry.register(service, "10.0.0.1:80")
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("event:")) == "event: registered"


def test_the_registry_serves_the_document_of_its_code(shared_registry: Registry) -> None:
    """`/openapi.json` is the document that was generated."""
    assert shared_registry.client.get("/openapi.json").json() == DOCUMENT


def test_every_route_is_looked_at() -> None:
    """The routes that are checked one by one are those of the document."""
    assert {route.path for route in ROUTES} >= {path for _, path, _ in OPERATIONS.values()}


@pytest.mark.parametrize("route", ROUTES, ids=lambda one: one.path)
def test_an_operation_has_the_name_of_its_function(route: APIRoute) -> None:
    """Clients are generated with the names that the code has; a second spelling of a path is not documented."""
    # A route's name is its function's, unless it is made from data: discovery's are, one for each resource type.
    if route.include_in_schema:
        assert route.operation_id == route.name
    else:
        assert route.operation_id in (None, route.name)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_has_a_described_tag_and_a_summary(name: str) -> None:
    """Readers and generators group operations by tags, of which each is described once."""
    described_tags = [tag["name"] for tag in DOCUMENT["tags"] if tag["description"]]
    _, _, operation = OPERATIONS[name]
    assert set(operation["tags"]) <= set(described_tags)
    assert operation["summary"]
    assert len(described_tags) == len(set(described_tags))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_body_has_a_schema_and_errors_of_the_native_api_are_problems(name: str) -> None:
    """A generated client reads each response; RFC 9457 documents are told from others by their media type."""
    _, _, operation = OPERATIONS[name]
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        assert [kind for kind, media in content.items() if not media.get("schema")] == [], status
        if status >= "400" and name in NATIVE and (name, status) != ("get_readiness", "503"):
            assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def test_no_schema_is_there_for_nothing() -> None:
    """Each component is part of a request or a response; FastAPI's own document of a wrong request is none."""
    text = str(DOCUMENT)
    unused = [name for name in DOCUMENT["components"]["schemas"] if f"'#/components/schemas/{name}'" not in text]
    assert unused == []
    assert "HTTPValidationError" not in DOCUMENT["components"]["schemas"]


def test_only_routes_that_read_no_credential_are_public() -> None:
    """Every other operation takes each kind of credential, or none where the registry is open."""
    public = {name for name, (_, _, operation) in OPERATIONS.items() if operation.get("security") == []}
    assert public == {"get_liveness", "log_in_with_aws"}
    assert public == {name for name, (_, _, operation) in OPERATIONS.items() if "security" in operation}
    assert {name for choice in DOCUMENT["security"] for name in choice} == {*DOCUMENT["components"]["securitySchemes"]}


def examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the JSON media types of the native API that have to have an example: request bodies and good answers."""
    for name, (_, _, operation) in NATIVE.items():
        body = operation.get("requestBody", {}).get("content", {})
        answer = operation["responses"].get("200", {}).get("content", {})
        for kind, content in (("request", body), ("answer", answer)):
            if "application/json" in content:
                yield f"{name}-{kind}", content["application/json"]


EXAMPLES_OF = dict(examples())


@pytest.mark.parametrize("media", EXAMPLES_OF.values(), ids=EXAMPLES_OF)
def test_examples_are_valid(media: dict[str, Any]) -> None:
    """Each request body and each good answer of the native API is shown by an example that its schema accepts."""
    named = DOCUMENT["components"]["schemas"].get(media["schema"].get("$ref", "").rpartition("/")[2], {})
    shown = [media["example"]] if "example" in media else named.get("examples", [])
    assert shown
    schema = media["schema"] | {"components": DOCUMENT["components"]}
    for example in shown:
        jsonschema.Draft202012Validator(schema).validate(example)


def test_every_native_operation_that_answers_json_is_shown() -> None:
    """No example is missing because nobody looked: reads and writes of endpoints are among those that are checked."""
    assert {"register_endpoint-request", "register_endpoint-answer", "send_heartbeats-request"} <= EXAMPLES_OF.keys()
    assert {"list_services-answer", "list_endpoints-answer", "get_endpoint-answer"} <= EXAMPLES_OF.keys()
