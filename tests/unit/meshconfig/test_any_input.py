"""Any input: definitions are refused or read, and nothing is raised, whatever stands in the files."""

import json
import random
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import inspect as types
from msgspec import structs

from meshconfig import definition
from meshconfig.position import Fault
from meshconfig.repository import Cache, read
from meshconfig.source import decode

FILES = {
    "mesh.yaml": "environment: staging\nadmin: {port: 9902}\ndefaults:\n  retry: {attempts: 2, per_try_timeout: 1s}\n",
    "services/web.yaml": """\
service: web
provides: {protocol: http1, defaults: {timeout: 3s}, slo: {p99: 300ms, success: 99.9}}
dependencies:
- group: core
- service: user
  host_header: user-service
  circuit_breaker: {max_connections: 64, pending_requests: 128, max_retries: 3}
  retry: {attempts: 3, per_try_timeout: 1s, when: [5xx, connect-failure]}
  headers: {add: {x-caller: web}, remove: [x-debug]}
  routes:
  - {path: /ping, timeout: 100ms, retry: null}
  - {prefix: /a, methods: [POST], headers: [{name: x-user, exact: jason}], split: {user: 90, shop: 10}}
  - {prefix: /b, version: {revision: "1"}, fault: {abort: {status: 503, percent: 0.5}}}
  - {prefix: /}
- name: payments
  address: api.payments.example:443
  tls: {server_name: payments.example}
  sticky: {by: cookie, name: session, ttl: 1h}
""",
    "services/user.yaml": "provides: {defaults: {timeout: &t 2s, keep_alive: *t}}\n",
    "groups/core.yaml": "dependencies:\n- {service: login, shadow: {service: shop, percent: 5}}\n- group: more\n",
    "groups/more.yaml": "dependencies: []\n",
    "gateways/grpc.yaml": "listen: {port: 50051}\nselect: {metadata: {protocol: grpc}}\nhosts: '{service}.example'\n",
    "edges/www.yaml": """\
listen: {port: 443, redirect_from: 80}
sites:
- hosts: [www.example, example]
  certificate: {chain: /etc/tls/www.pem, key: /etc/tls/www.key}
  routes:
  - {prefix: /api, service: api, timeout: 15s, auth: {jwt: {issuer: a, jwks_file: /b, claims: {sub: x-user}}}}
  - {prefix: /, service: web, rate_limit: {per_second: 20, by: source_ip}}
""",
}
FIELDS = sorted(
    {
        field.name
        for kind in vars(definition).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        for field in structs.fields(kind)
    }
)
SCRAPS = [
    "*t",
    "&t",
    "!!str",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "\t",
    "\0",
    "\u2028",
    "\ufeff",
    "---\n",
    "null",
    "'",
    '"',
    "é",
]

edits = st.lists(
    st.tuples(
        st.sampled_from(sorted(FILES)),
        st.integers(0, 900),
        st.integers(0, 12),
        st.sampled_from(SCRAPS) | st.text(max_size=4) | st.sampled_from(FIELDS),
    ),
    min_size=1,
    max_size=4,
)
scraps = st.sampled_from(["a", "shop", "x-user", "/a", "registry", "GET", "host"])
junk = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.lists(st.none(), max_size=2)
    | st.dictionaries(st.sampled_from(FIELDS), st.none(), max_size=2)
)


def written(described: types.Type) -> st.SearchStrategy[Any]:
    """Return values that files may have where a type is expected: mostly such ones as it takes."""
    if isinstance(described, types.Metadata):
        schema = described.extra_json_schema or {}
        fitting = schema.get("examples") or schema.get("enum") or ["0s", "100ms", "1s", "90s"]
        return st.sampled_from(fitting) | written(described.type)
    if isinstance(described, types.UnionType):
        return st.one_of(*map(written, described.types))
    if isinstance(described, types.StructType):
        return st.fixed_dictionaries({}, optional={each.encode_name: written(each.type) for each in described.fields})
    if isinstance(described, types.VarTupleType):
        return st.lists(written(described.item_type), max_size=3)
    if isinstance(described, types.DictType):
        return st.dictionaries(scraps, written(described.value_type), max_size=2)
    choices = st.sampled_from(described.values) if isinstance(described, types.LiteralType) else scraps
    numbers = st.integers(0, 120)
    plain = {types.BoolType: st.booleans(), types.IntType: numbers, types.FloatType: numbers}
    return plain.get(type(described), choices) | junk


def edited(changes: list[tuple[str, int, int, str]]) -> dict[str, str]:
    """Return the files with places cut out and replaced."""
    files = dict(FILES)
    for file, place, length, scrap in changes:
        start = place % (len(files[file]) + 1)
        files[file] = files[file][:start] + scrap + files[file][start + length :]
    return files


def assert_well_formed(files: dict[str, str], faults: list[Fault]) -> None:
    """Assert that each fault points into its file, and that messages are sentences for one line."""
    for fault in faults:
        text = files[fault.position.file]
        for line_break in ("\r\n", "\r", "\x85", "\u2028", "\u2029"):
            text = text.replace(line_break, "\n")
        lines = text.split("\n")
        assert 0 <= fault.position.line <= len(lines), fault
        if fault.position.line:
            assert 1 <= fault.position.column <= len(lines[fault.position.line - 1]) + 1, fault
        assert fault.message.endswith((".", "?")), fault
        assert not fault.fix or fault.fix.endswith((".", "?")), fault
        assert "\n" not in str(fault)
        assert len(str(fault)) < 2000


def test_what_is_edited_is_read() -> None:
    """The files that the others change are right as they are."""
    configuration, faults = read(FILES)
    assert configuration is not None, faults


@given(edits)
def test_edited_files_never_raise(changes: list[tuple[str, int, int, str]]) -> None:
    """Every edit is read or refused with a position, and origins can be asked for."""
    files = edited(changes)
    configuration, faults = read(files, registered=["user", "shop"])
    assert_well_formed(files, faults)
    if configuration is not None:
        assert all(len(caller.origins) >= len(caller.dependencies) for caller in configuration.callers.values())
        assert "mesh.environment" in configuration.origins


@given(st.dictionaries(st.sampled_from(sorted(FILES)), st.text()))
@example({"edges/www.yaml": "0\n\x850"})
@example({"services/web.yaml": 'dependencies: [{service: a, routes: [{prefix: /, cookie: {"a\\nb": 1}}]}]'})
def test_texts_never_raise(texts: dict[str, str]) -> None:
    """Files of any text are read or refused."""
    files = FILES | texts
    assert_well_formed(files, read(files)[1])


documents = st.fixed_dictionaries(
    {},
    optional={
        "mesh.yaml": written(types.type_info(definition.Mesh)),
        "services/web.yaml": written(types.type_info(definition.Service)),
        "services/user.yaml": written(types.type_info(definition.Service)),
        "groups/core.yaml": written(types.type_info(definition.Group)),
        "gateways/grpc.yaml": written(types.type_info(definition.Gateway)),
        "edges/www.yaml": written(types.type_info(definition.Edge)),
    },
)


@given(documents)
def test_values_of_any_type_never_raise(documents: dict[str, Any]) -> None:
    """Known keys, with values of the right types and of others, are read or refused."""
    files = FILES | {file: json.dumps(document) for file, document in documents.items()}
    assert_well_formed(files, read(files)[1])


@given(st.binary())
def test_bytes_are_decoded_or_refused(content: bytes) -> None:
    """Bytes that are no UTF-8 are refused where they begin to be none."""
    text, faults = decode("a", content)
    assert faults or text.encode() == content
    for fault in faults:
        before = content.decode("utf-8", "replace")
        assert fault.position.line <= before.count("\n") + before.count("\r") + before.count("\x85") + 1 + sum(
            before.count(each) for each in "\u2028\u2029"
        )


@given(st.randoms(use_true_random=False), edits)
def test_the_order_of_files_does_not_matter(shuffle: random.Random, changes: list[tuple[str, int, int, str]]) -> None:
    """Files in another order say the same, and have the same faults in the same order."""
    files = edited(changes)
    names = list(files)
    shuffle.shuffle(names)
    assert read({name: files[name] for name in names}) == read(files)


@given(edits, edits)
def test_a_cache_changes_nothing(
    first: list[tuple[str, int, int, str]], second: list[tuple[str, int, int, str]]
) -> None:
    """A repository that is read after others is read as if it were the first."""
    cache = Cache()
    for files in (FILES, edited(first), edited(second), FILES):
        assert read(files, cache=cache) == read(files)
