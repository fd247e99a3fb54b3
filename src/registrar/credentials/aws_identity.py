"""The proof of an AWS identity: a signed GetCallerIdentity request that the registry sends to AWS's STS.

HashiCorp Vault's AWS auth method has this design. The registry takes the headers alone and builds the request itself,
so that the keys can be used for nothing else.
"""

import re
import time

from registrar.credentials.sigv4 import AwsKeys, SigningScope, authorization

BODY = b"Action=GetCallerIdentity&Version=2011-06-15"
CONTENT_TYPE = "application/x-www-form-urlencoded"
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}")


def is_region(text: str) -> bool:
    """Return whether a text has the form of an AWS region's name, like ``eu-central-1``."""
    return _REGION.fullmatch(text) is not None


def sts_host(region: str) -> str:
    """Return the name of AWS's STS in a region; China's regions have a domain of their own."""
    return f"sts.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def identity_headers(
    keys: AwsKeys, region: str, audience: str, instance_id: str, nonce: str, at: float
) -> dict[str, str]:
    """Return the headers of a signed GetCallerIdentity request.

    Args:
        keys: the keys of the role.
        region: the AWS region whose STS is asked.
        audience: the registry that may use the proof; another one refuses it.
        instance_id: the instance that logs in; a session is bound to it.
        nonce: random, so that no two proofs are the same, although a signature has whole seconds.
        at: seconds since the epoch.
    """
    headers = {
        "content-type": CONTENT_TYPE,
        "host": sts_host(region),
        "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at)),
        "x-registry-audience": audience,
        "x-registry-instance": instance_id,
        "x-registry-nonce": nonce,
    }
    if keys.session_token:
        headers["x-amz-security-token"] = keys.session_token
    return {**headers, "authorization": authorization("POST", "/", headers, BODY, keys, SigningScope(region, "sts"))}
