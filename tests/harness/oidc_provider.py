"""A small OpenID Connect provider on loopback, with keys of its own, which can lie in each way that a test asks for."""

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

CLIENT_ID = "headcount"
CLIENT_SECRET = "s3cret & more"  # of this provider alone


class Provider:
    """The provider: who signs in next, and what its tokens say.

    Args:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.person: dict[str, Any] = {"sub": "ann", "email": "ann@example.org", "email_verified": True}
        """Whoever signs in; no password is asked for."""
        self.changed: dict[str, Any] = {}
        """Claims of the next ID token that are not what they should be; None: left out."""
        self.key: Any = RSAKey.generate_key(2048, {"kid": "a"}, private=True)
        """The key that signs."""
        self.published: list[Any] = [self.key]
        """The keys that are shown."""
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "a"}
        """The header of the next ID token."""
        self.configuration: dict[str, Any] = {}
        """Fields of the discovery document that are not what they should be."""
        self.requests: list[str] = []
        """The paths that were asked for."""
        self.codes_once = True
        """Whether a code is good once."""
        self._codes: dict[str, dict[str, str]] = {}

    def become_honest(self) -> None:
        """Forget what tests have changed, but for the keys."""
        self.person = {"sub": "ann", "email": "ann@example.org", "email_verified": True}
        self.changed, self.configuration, self.codes_once = {}, {}, True

    def document(self) -> dict[str, Any]:
        """Return the discovery document."""
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        } | self.configuration

    def authorize(self, query: dict[str, str]) -> str:
        """Return where a person who has signed in is sent to."""
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        code = f"code-{len(self._codes)}"
        self._codes[code] = query
        back = {"code": code, "state": query["state"], "iss": self.url}
        return f"{query['redirect_uri']}?{urlencode(back)}"

    def exchange(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Return the answer to a code."""
        asked = self._codes.pop(form["code"], None) if self.codes_once else self._codes.get(form["code"])
        pair = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        challenge = _base64(hashlib.sha256(form["code_verifier"].encode()).digest())
        if pair != "headcount:s3cret%20%26%20more":
            return 401, {"error": "invalid_client"}
        if asked is None or challenge != asked["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": "x", "token_type": "Bearer", "id_token": self.id_token(asked["nonce"])}

    def id_token(self, nonce: str) -> str:
        """Return an ID token, with the lies that are asked for."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": nonce} | self.person
        claims = {name: value for name, value in (claims | self.changed).items() if value is not None}
        if self.header["alg"] in ("RS256", "ES256"):
            return jwt.encode(self.header, claims, self.key, algorithms=["RS256", "ES256"])
        # A library refuses to make these.
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (self.header, claims))
        if self.header["alg"] == "none":
            return f"{signed}."
        return f"{signed}.{_base64(hmac.digest(self.key, signed.encode(), 'sha256'))}"

    def sign_by(self, key: Any, **header: str) -> None:
        """Sign the next ID tokens by another key, of which nothing is shown."""
        self.key, self.header = key, header

    def public_key_as_secret(self) -> bytes:
        """Return the public key as it is shown, which an attacker can have too."""
        pem: bytes = self.published[0].as_pem(private=False)
        return pem


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def new_ec_key(kid: str) -> Any:
    """Return a new key of an elliptic curve."""
    return ECKey.generate_key("P-256", {"kid": kid}, private=True)


@contextmanager
def oidc_provider() -> Iterator[Provider]:
    """Run the provider until the end of the block."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, query = urlsplit(self.path).path, urlsplit(self.path).query
            provider.requests.append(path)
            if path == "/authorize":
                self.send_response(302)
                self.send_header("location", provider.authorize(dict(parse_qsl(query))))
                self.send_header("content-length", "0")
                self.end_headers()
            elif path == "/keys":
                self._answer(200, {"keys": [key.as_dict(private=False) for key in provider.published]})
            else:
                self._answer(200, provider.document())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._answer(*provider.exchange(form, self.headers.get("authorization", "")))

        def _answer(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_text: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider = Provider(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield provider
        server.shutdown()
        thread.join()
