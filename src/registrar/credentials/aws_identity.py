"""The proof of an AWS identity: a signed GetCallerIdentity request that the registry sends to AWS's STS.

HashiCorp Vault's AWS auth method has this design. The registry takes the headers alone and builds the request itself,
so that the keys can be used for nothing else.
"""

import re
import time
from collections.abc import Mapping

from registrar.credentials.sigv4 import AwsKeys, SigningScope, authorization
from registrar.errors import AwsIdentityUnavailable

BODY = b"Action=GetCallerIdentity&Version=2011-06-15"
CONTENT_TYPE = "application/x-www-form-urlencoded"
# A signature covers values without the blanks that are doubled or at the ends: two ids would have the same one.
_INSTANCE_ID = re.compile(r"[!-~]+(?: [!-~]+)*")
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}")


def is_region(text: str) -> bool:
    """Return whether a text has the form of an AWS region's name, like ``eu-central-1``."""
    return _REGION.fullmatch(text) is not None


def aws_region(environ: Mapping[str, str], locality: str) -> str:
    """Return the AWS region of this process; empty if it is not known.

    Args:
        environ: the environment, in which every AWS SDK looks first.
        locality: the region of the settings, or that of the task or instance.
    """
    candidates = (environ.get("AWS_REGION", ""), environ.get("AWS_DEFAULT_REGION", ""), locality)
    return next(filter(is_region, candidates), "")


def check_identity(region: str, instance_id: str) -> None:
    """Check what a proof needs beside keys.

    Raises:
        AwsIdentityUnavailable: the region is not known, or the instance id cannot be a header.
    """
    if not region:
        raise AwsIdentityUnavailable("the AWS region is not known", "set AWS_REGION, like eu-central-1")
    if not _INSTANCE_ID.fullmatch(instance_id):
        raise AwsIdentityUnavailable(
            f"the instance id {instance_id!r} cannot be signed: it needs printable ASCII, with single blanks inside",
            "set another REGISTRAR_INSTANCE_ID",
        )


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
