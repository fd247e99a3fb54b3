"""Definitions for tests: a repository that is right, and documents of every shape."""

from typing import Any

from hypothesis import strategies as st
from msgspec import inspect as types
from msgspec import structs

from meshconfig.definition.edge import Edge
from meshconfig.definition.gateway import Gateway
from meshconfig.definition.group import Group
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.service import Service
from meshconfig.definition.strict_block import StrictBlock

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


def blocks(kind: type[StrictBlock] = StrictBlock) -> set[type[StrictBlock]]:
    """Return the types of blocks that files may have: all that are derived from one."""
    return {kind}.union(*map(blocks, kind.__subclasses__()))


FIELDS = sorted({field.name for kind in blocks() for field in structs.fields(kind)})
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


documents = st.fixed_dictionaries(
    {},
    optional={
        "mesh.yaml": written(types.type_info(Mesh)),
        "services/web.yaml": written(types.type_info(Service)),
        "services/user.yaml": written(types.type_info(Service)),
        "groups/core.yaml": written(types.type_info(Group)),
        "gateways/grpc.yaml": written(types.type_info(Gateway)),
        "edges/www.yaml": written(types.type_info(Edge)),
    },
)
