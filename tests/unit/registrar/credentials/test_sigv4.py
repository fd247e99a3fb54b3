"""The signature, against AWS's published test suite and against botocore."""

import datetime as dt

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from registrar.credentials.aws_identity import BODY, identity_headers, is_region, sts_host
from registrar.credentials.sigv4 import AwsKeys, SigningScope, authorization

# The keys, the scope, the moment and the host of every vector of the AWS Signature Version 4 Test Suite.
KEYS = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SCOPE = SigningScope("us-east-1", "service")
HEADERS = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z"}
TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7"
    "mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+"
    "xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)


@pytest.mark.parametrize(
    ("name", "method", "headers", "body", "signature"),
    [
        ("get-vanilla", "GET", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("post-vanilla", "POST", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "post-header-key-sort",
            "POST",
            {"my-header1": "value1"},
            b"",
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        ),
        (
            "post-header-value-case",
            "POST",
            {"my-header1": "VALUE1"},
            b"",
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        ),
        (
            "get-header-value-trim",
            "GET",
            {"my-header1": " value1", "my-header2": ' "a   b   c"'},
            b"",
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            "post-x-www-form-urlencoded",
            "POST",
            {"content-type": "application/x-www-form-urlencoded"},
            b"Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
        (
            "post-sts-header-before",
            "POST",
            {"x-amz-security-token": TOKEN},
            b"",
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        ),
    ],
)
def test_the_vectors_of_the_aws_test_suite(
    name: str, method: str, headers: dict[str, str], body: bytes, signature: str
) -> None:
    """Each vector without a query has the signature that AWS published."""
    signed = authorization(method, "/", {**HEADERS, **headers}, body, KEYS, SCOPE)
    names = ";".join(sorted({**HEADERS, **headers}))
    scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"
    assert signed == f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}", name


_visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


@given(_visible, _visible, st.text("ab  c", min_size=1).filter(str.strip), st.integers(0, 2_000_000_000))
def test_the_proof_is_signed_as_botocore_signs_it(token: str, audience: str, instance_id: str, at: int) -> None:
    """Whatever the values are, the same headers get the same signature from botocore."""
    keys = AwsKeys("ASIAFAKE", "secret/+key", token)
    headers = identity_headers(keys, "eu-central-1", audience, instance_id, "0" * 32, at)
    signed = headers.pop("authorization")
    assert headers["x-amz-date"] == dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    assert headers["x-amz-security-token"] == token
    url = f"https://{headers.pop('host')}/"
    request = AWSRequest("POST", url, data=BODY, headers=headers)
    request.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials(keys.access_key_id, keys.secret_access_key, token), "sts", "eu-central-1")
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert signed.endswith(f"Signature={signature}")


def test_keys_without_a_token_send_none() -> None:
    """An empty header would be signed, and refused."""
    assert "x-amz-security-token" not in identity_headers(KEYS, "eu-central-1", "a", "i", "n", 0)


def test_the_keys_hide_themselves() -> None:
    """Neither the secret key nor the session token is in a traceback or a log."""
    assert "wJalr" not in repr(KEYS)
    assert "token" not in f"{AwsKeys('AKID', 'secret', 'token')}"


@pytest.mark.parametrize("name", ["eu-central-1", "us-gov-west-1", "cn-north-1", "ap-southeast-12"])
def test_a_region(name: str) -> None:
    """A region of AWS is one."""
    assert is_region(name)


@pytest.mark.parametrize("name", ["", "tokyo", "eu-central-1.evil.example", "eu-central-1\n", "EU-CENTRAL-1"])
def test_no_region(name: str) -> None:
    """A locality of another kind, or one that would lead elsewhere, is none."""
    assert not is_region(name)


def test_chinas_regions_have_a_domain_of_their_own() -> None:
    """The registry expects the same name."""
    assert sts_host("cn-north-1") == "sts.cn-north-1.amazonaws.com.cn"
    assert sts_host("eu-central-1") == "sts.eu-central-1.amazonaws.com"
