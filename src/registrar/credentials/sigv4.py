"""AWS Signature Version 4 for a request without a query, with the standard library alone.

The algorithm is the one in "Create a signed AWS API request" of AWS's IAM User Guide. botocore has it too, and costs
6.5 MB of memory beside each app.
"""

import hashlib
import hmac
from collections.abc import Mapping

from msgspec import Struct

ALGORITHM = "AWS4-HMAC-SHA256"


class AwsKeys(Struct, frozen=True):
    """Keys that sign requests in the name of an AWS role.

    Attributes:
        access_key_id: not secret; part of each signature.
        secret_access_key: never sent.
        session_token: sent with each request; empty for keys that do not expire.
    """

    access_key_id: str
    secret_access_key: str
    session_token: str = ""

    def __repr__(self) -> str:
        return f"AwsKeys({self.access_key_id!r}, (hidden))"


class SigningScope(Struct, frozen=True):
    """The region and the service for which a signature is valid."""

    region: str
    service: str


def authorization(
    method: str, path: str, headers: Mapping[str, str], body: bytes, keys: AwsKeys, scope: SigningScope
) -> str:
    """Return the Authorization header of a request all of whose headers are signed.

    Args:
        method: in capitals.
        path: encoded as it is sent.
        headers: by names in lower case; ``host`` and ``x-amz-date`` have to be among them.
        body: the whole body.
        keys: the keys to sign with.
        scope: the region and service that get the request.
    """
    moment = headers["x-amz-date"]
    day = moment[:8]
    names = ";".join(sorted(headers))
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in sorted(headers)]
    canonical = "\n".join([method, path, "", *lines, "", names, hashlib.sha256(body).hexdigest()])
    terms = f"{day}/{scope.region}/{scope.service}/aws4_request"
    to_sign = "\n".join([ALGORITHM, moment, terms, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{keys.secret_access_key}".encode()
    for term in terms.split("/"):
        key = _hmac(key, term)
    signature = _hmac(key, to_sign).hex()
    return f"{ALGORITHM} Credential={keys.access_key_id}/{terms}, SignedHeaders={names}, Signature={signature}"


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
