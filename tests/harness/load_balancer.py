"""A load balancer of AWS as its targets see it: what it signs, and the server of its keys on loopback."""

import base64
import http.server
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

ARN = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:loadbalancer/app/headcount/0123456789abcdef"
OTHER_ARN = "arn:aws:elasticloadbalancing:eu-west-1:444455556666:loadbalancer/app/headcount/fedcba9876543210"
CLIENT_ID = "headcount"
ISSUER = "https://login.example.com/realms/staff"
ANN = {"sub": "ann", "email": "ann@example.org", "email_verified": True}


class LoadBalancers:
    """The load balancers of a region, which share their keys, and the server that shows them.

    Args:
        url: of the server of keys.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.key_id = str(uuid.uuid4())
        """The key that signs."""
        self.key = ECKey.generate_key("P-256", private=True)
        self.shown: dict[str, bytes] = {self.key_id: self.key.as_pem(private=False)}
        """Documents by the name of the key."""
        self.requests: list[str] = []
        """The paths that were asked for."""
        self.status = 0
        """The status of every answer; 0: as it should be."""

    def header(self, **changed: Any) -> dict[str, Any]:
        """Return the header of a statement, with fields that are changed; None: left out."""
        ends = int(time.time()) + 120
        header = {"typ": "JWT", "kid": self.key_id, "alg": "ES256", "iss": ISSUER, "client": CLIENT_ID, "signer": ARN}
        return {name: value for name, value in (header | {"exp": ends} | changed).items() if value is not None}

    def statement(self, claims: dict[str, Any] | None = None, *, key: Any = None, **changed: Any) -> str:
        """Return a statement that is signed, whatever it says."""
        return self.sign(self.header(**changed), ANN if claims is None else claims, key)

    def sign(self, header: dict[str, Any], claims: dict[str, Any], key: Any = None) -> str:
        """Return header and claims signed by ES256."""
        signed = signed_part(header, claims)
        signature = JWSRegistry().get_alg("ES256").sign(signed.encode(), key or self.key)
        return f"{signed}.{base64.urlsafe_b64encode(signature).decode()}"


def signed_part(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Return what is signed of a statement: in base64 with padding, as AWS writes it."""
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in (header, claims))


@contextmanager
def load_balancers() -> Iterator[LoadBalancers]:
    """Run the server of keys until the end of the block."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            region.requests.append(self.path)
            body = region.shown.get(self.path.removeprefix("/"), b"")
            self.send_response(region.status or (200 if body else 404))
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_text: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        region = LoadBalancers(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield region
        finally:
            server.shutdown()
            thread.join()
