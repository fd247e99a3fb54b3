"""A proxyless gRPC client in a process of its own, and gRPC servers for its endpoints.

Run as ``python -m harness.proxyless`` it is grpcio's client; ``tests/proxyless`` has grpc-go's, which takes the same
lines. A process of its own, since gRPC's threads and a fork of this one do not go together, and a client reads its
bootstrap once.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from msgspec import Struct

from harness.process import end

_METHOD = "/headcount.test.Where/Am"
GRPCIO = (sys.executable, "-m", "harness.proxyless")
"""The program of grpcio's client."""


class Rpc(Struct, frozen=True):
    """How an RPC ended: its status, the endpoint that answered or the client's words, and the seconds that it took."""

    status: str
    said: str
    seconds: float


class ProxylessClient:
    """A client that resolves ``xds:///service``, and the servers that it may find."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def serve(self) -> str:
        """Start a server, and return its endpoint."""
        return str(self._ask("serve"))

    def stop(self, endpoint: str) -> None:
        """Stop a server at once."""
        self._ask("stop", endpoint)

    def call(self, target: str, *, timeout: float = 5.0, wait: bool = False) -> Rpc:
        """Make an RPC to a service, or an address; with ``wait`` it waits until there is an endpoint."""
        return Rpc(**self._ask("call", _resolved(target), timeout, wait))

    def endpoints(self, target: str, calls: int = 10) -> set[str]:
        """Return the endpoints that answered so many RPCs, with the status of those that failed."""
        return {rpc.said if rpc.status == "OK" else rpc.status for rpc in map(self.call, [target] * calls)}

    def flood(self, *targets: str, seconds: float) -> dict[str, int]:
        """Make RPCs to the targets in turn for some time, and return how many ended with each status."""
        counts: dict[str, int] = self._ask("flood", list(map(_resolved, targets)), seconds)
        return counts

    def _ask(self, *words: object) -> Any:  # JSON
        assert self._process.stdin, "it is a pipe"
        assert self._process.stdout, "it is a pipe"
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the client ended with {self._process.wait()}; its log has the reason"
        return json.loads(line)


def _resolved(target: str) -> str:
    """Return an address as it is, and a service as a target of xDS."""
    return target if ":" in target else f"xds:///{target}"


@contextlib.contextmanager
def proxyless_client(
    ports: Sequence[int], log: Path, program: Sequence[str] = GRPCIO, **environment: str
) -> Iterator[ProxylessClient]:
    """Run a client of the gRPC listeners on these ports until the end of the block."""
    server = {
        "server_uri": f"127.0.0.1:{ports[0]}",
        "channel_creds": [{"type": "insecure"}],
        "server_features": ["xds_v3"],
    }
    bootstrap = {
        "xds_servers": [server],
        "node": {"id": f"client-{time.monotonic_ns()}", "cluster": "tests", "locality": {"region": "r", "zone": "za"}},
    }
    inherited = {name: value for name, value in os.environ.items() if not name.casefold().endswith("_proxy")}
    env = inherited | {
        "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap),
        "PYTHONPATH": str(Path(__file__).parents[1]),
        **environment,
    }
    with (
        log.open("ab") as errors,
        subprocess.Popen(
            program, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            yield ProxylessClient(process)
        finally:
            end(process)


def _main() -> None:
    # Here alone: the processes of tests themselves do without gRPC and its threads. By name: it brings no types.
    grpc: Any = import_module("grpc")
    servers: dict[str, Any] = {}
    channels: dict[str, Any] = {}

    def serve() -> str:
        server = grpc.server(ThreadPoolExecutor(2))
        endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: endpoint.encode())
        service, _, method = _METHOD[1:].partition("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        server.start()
        servers[endpoint] = server
        return endpoint

    def stop(endpoint: str) -> None:
        servers.pop(endpoint).stop(None).wait()

    def call(target: str, timeout: float, wait: bool) -> dict[str, Any]:
        if target not in channels:
            channels[target] = grpc.insecure_channel(target)
        begun = time.monotonic()
        try:
            said = channels[target].unary_unary(_METHOD)(b"", timeout=timeout, wait_for_ready=wait).decode()
            status = "OK"
        except grpc.RpcError as error:
            status, said = error.code().name, error.details()
        return {"status": status, "said": said, "seconds": time.monotonic() - begun}

    def flood(targets: list[str], seconds: float) -> dict[str, int]:
        counts: dict[str, int] = {}
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for target in targets:
                status = call(target, 5, wait=False)["status"]
                counts[status] = counts.get(status, 0) + 1
        return counts

    commands: dict[str, Callable[..., Any]] = {"serve": serve, "stop": stop, "call": call, "flood": flood}
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(commands[name](*arguments)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
