"""A workload with keys of AWS, as the registry sees it: logins signed by Signature Version 4, right or wrong."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

BODY = "Action=GetCallerIdentity&Version=2011-06-15"
FORM = "application/x-www-form-urlencoded; charset=utf-8"


@dataclass(frozen=True)
class Keys:
    """The keys of a role's session."""

    access_key_id: str = "ASIAQWERTYUIOPASDFGH"
    secret: str = "hush"
    token: str = "IQoJb3JpZ2luX2VjEJ///wEaCWV1LXdlc3QtMSJ=="


@dataclass(frozen=True)
class Workload:
    """What a workload signs; each part can be wrong.

    Attributes:
        host: the name of STS; that of the region when empty.
        day: the day of the key; that of the date when empty.
    """

    keys: Keys = Keys()
    instance: str = "0123456789abcdef"
    audience: str = "registry.example.com"
    region: str = "eu-west-1"
    service: str = "sts"
    host: str = ""
    day: str = ""
    method: str = "POST"
    path: str = "/"
    query: str = ""
    body: str = BODY

    def headers(self, at: float, **changed: str | None) -> dict[str, str]:
        """Return signed headers; those that are named by `changed` have another value, or are left out."""
        headers: dict[str, str] = {
            "content-type": FORM,
            "host": self.host or f"sts.{self.region}.amazonaws.com" + (".cn" if self.region.startswith("cn-") else ""),
            "x-amz-date": datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ"),
            "x-amz-security-token": self.keys.token,
            "x-registry-audience": self.audience,
            "x-registry-instance": self.instance,
            "x-registry-nonce": secrets.token_hex(16),
        }
        for name, value in changed.items():
            headers[name.replace("_", "-")] = value or ""
            if value is None:
                del headers[name.replace("_", "-")]
        return headers | {"authorization": self.authorization(headers)}

    def authorization(self, headers: Mapping[str, str]) -> str:
        """Return the header with the signature of all these headers."""
        names = sorted(headers)
        lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names)
        signed = ";".join(names)
        request = "\n".join([self.method, self.path, self.query, lines, signed, _sha256(self.body)])
        date = headers.get("x-amz-date", "")
        day = self.day or date[:8]
        scope = f"{day}/{self.region}/{self.service}/aws4_request"
        key = b"AWS4" + self.keys.secret.encode()
        for part in scope.split("/"):
            key = _hmac(key, part)
        signature = _hmac(key, "\n".join(["AWS4-HMAC-SHA256", date, scope, _sha256(request)])).hex()
        return (
            f"AWS4-HMAC-SHA256 Credential={self.keys.access_key_id}/{scope}, "
            f"SignedHeaders={signed}, Signature={signature}"
        )

    def login(self, at: float, **changed: str | None) -> bytes:
        """Return the document of a login."""
        return document(self.headers(at, **changed))


def document(headers: Any) -> bytes:
    """Return the document with these headers."""
    return json.dumps({"headers": headers}).encode()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
