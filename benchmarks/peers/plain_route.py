"""A plain FastAPI route with a pydantic body and cached bytes: what one writes first, under the same server.

Run as ``python -m benchmarks.peers.plain_route PORT DIRECTORY``; each file of the directory is a service's answer.
"""

import contextlib
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI, Response
from harness.process import eventually, free_port, running
from pydantic import BaseModel

from benchmarks.peers.side import Side, end_of, listens

NAME = "FastAPI route"


class DiscoveryRequest(BaseModel):
    """What Envoy posts."""

    version_info: str = ""
    node: dict[str, Any]
    resource_names: list[str]
    type_url: str = ""


class _Answer(msgspec.Struct):
    version_info: str


def build_app(answers: Mapping[str, bytes]) -> FastAPI:
    """Return the application; each service has its answer, which never changes."""
    app = FastAPI()
    known = {service: (msgspec.json.decode(body, type=_Answer).version_info, body) for service, body in answers.items()}

    @app.post("/v3/discovery:endpoints")
    async def poll(request: DiscoveryRequest) -> Response:
        version, body = known[request.resource_names[0]]
        if request.version_info == version:
            return Response(status_code=304)
        return Response(body, media_type="application/json")

    return app


@contextlib.contextmanager
def plain_route(directory: Path, answers: Mapping[str, bytes], workers: int) -> Iterator[Side]:
    """Run the route in so many processes, each with a socket of its own on one port, as the registry has."""
    home = directory / f"route-{workers}"
    home.mkdir()
    for service, answer in answers.items():
        (home / service).write_bytes(answer)
    port = free_port()
    log = directory / f"route-{workers}.log"
    command = [sys.executable, "-m", "benchmarks.peers.plain_route", str(port), str(home)]
    with contextlib.ExitStack() as processes:
        pids = [processes.enter_context(running(command, log=log)).pid for _ in range(workers)]
        eventually(
            lambda: log.read_text().count("serving") == workers and listens(port), within=60, said=lambda: end_of(log)
        )
        yield Side(NAME, port, pids)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        sys.stdout.write("serving\n")
        sys.stdout.flush()


def serve(port: int, app: FastAPI) -> None:
    """Serve as one of several processes that have a socket each on one port; say so when it listens."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(4096)
    config = uvicorn.Config(app, http="httptools", loop="uvloop", ws="none", log_config=None, access_log=False)
    _Server(config).run(sockets=[listener])


if __name__ == "__main__":
    serve(int(sys.argv[1]), build_app({file.name: file.read_bytes() for file in Path(sys.argv[2]).iterdir()}))
