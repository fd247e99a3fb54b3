"""What answers on a machine's own link, on loopback: the ECS agent's metadata and EC2's IMDSv2."""

import contextlib
import http.server
import json
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Self

_SAMPLES = Path(__file__).parent.parent / "samples"


def sample(name: str) -> Any:
    """Return a document as AWS's own programs write it."""
    return json.loads((_SAMPLES / f"{name}.json").read_text())


class Link:
    """A small HTTP server in a thread, while it is entered.

    Attributes:
        latency: seconds before each answer.
        failures: (status, body) for the next requests in place of their answers.
        silent: paths whose requests are never answered.
        requests: what came, as (method, path).
    """

    def __init__(self) -> None:
        self.latency = 0.0
        self.failures: deque[tuple[int, str]] = deque()
        self.silent: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        link = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                link._serve(self)

            do_PUT = do_GET  # noqa: N815  # the base class looks for it

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """Return the status and the body for one request."""
        raise NotImplementedError

    def _serve(self, request: http.server.BaseHTTPRequestHandler) -> None:
        method, path = request.command, request.path
        self.requests.append((method, path))
        request.close_connection = True
        time.sleep(self.latency)
        if path in self.silent:
            self._closing.wait(30)
            return
        headers = {name.lower(): value for name, value in request.headers.items()}
        status, body = self.failures.popleft() if self.failures else self.answer(method, path, headers)
        # A client that lost its patience is gone.
        with contextlib.suppress(ConnectionError):
            self._send(request, status, body.encode())

    @staticmethod
    def _send(request: http.server.BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        request.send_response(status)
        # Go's server, which the agent is, sends what is large in chunks.
        if len(body) <= 2048:
            request.send_header("content-length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
            return
        request.send_header("transfer-encoding", "chunked")
        request.end_headers()
        for start in range(0, len(body), 1000):
            part = body[start : start + 1000]
            request.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        request.wfile.write(b"0\r\n\r\n")


class FakeTask(Link):
    """The task metadata endpoint of one container.

    Attributes:
        task: the document that it tells; a test may change it.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.task = sample(name)

    @property
    def variables(self) -> dict[str, str]:
        """What the agent sets in the container's environment."""
        return {"ECS_CONTAINER_METADATA_URI_V4": f"{self.url}/v4/abc"}

    def container(self, name: str) -> Any:
        """Return the part of the document about one container."""
        return next(candidate for candidate in self.task["Containers"] if candidate["Name"] == name)

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """Tell the task or the registrar's own container."""
        if path == "/v4/abc/task":
            return 200, json.dumps(self.task)
        if path == "/v4/abc":
            return 200, json.dumps(self.container("registrar"))
        words: str = sample("tmds-v4-errors")["404 unknown endpoint id"]
        return 404, json.dumps(words)


class FakeImds(Link):
    """IMDSv2: nothing without a token, no token without its ttl.

    Attributes:
        ipv6_only: whether the instance has no IPv4 address.
        role_keys: the document with the keys of the instance's role; None for an instance without one.
    """

    ipv6_only = False
    role_keys: dict[str, str] | None = None

    @property
    def variables(self) -> dict[str, str]:
        """What leads an AWS SDK here."""
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url}

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """Give out a token, and the instance's documents for one."""
        if (method, path) == ("PUT", "/latest/api/token"):
            ttl = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
            return (200, "a-token==") if ttl.isdigit() and 1 <= int(ttl) <= 21600 else (400, "")
        if method != "GET" or headers.get("x-aws-ec2-metadata-token") != "a-token==":
            return 401, ""
        document = sample("imds-instance-identity-document")
        documents = {
            **(
                {"/latest/meta-data/ipv6": "2600:1f18::17"}
                if self.ipv6_only
                else {"/latest/meta-data/local-ipv4": document["privateIp"]}
            ),
            "/latest/dynamic/instance-identity/document": json.dumps(document, indent=2),
        }
        if self.role_keys is not None:
            documents["/latest/meta-data/iam/security-credentials/"] = "shop-host-role"
            documents["/latest/meta-data/iam/security-credentials/shop-host-role"] = json.dumps(self.role_keys)
        return (200, documents[path]) if path in documents else (404, "")


class FakeKeys(Link):
    """The credentials endpoint of a container, as the agents of ECS and EKS have it.

    Attributes:
        keys: the document that it tells.
        authorization: the header that it wants; empty for none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys = {"AccessKeyId": "ASIAFAKE", "SecretAccessKey": "secret", "Token": "session"}
        self.authorization = ""

    @property
    def variables(self) -> dict[str, str]:
        """What the agent sets in the container's environment."""
        return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}/v2/credentials/abc"}

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """Tell the keys to a container that has the right header."""
        if headers.get("authorization", "") != self.authorization:
            return 401, "wrong token"
        return (200, json.dumps(self.keys)) if path == "/v2/credentials/abc" else (404, "")
