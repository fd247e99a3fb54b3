"""Keys from the agents of ECS and EC2, and a proof that moto's STS accepts."""

import contextlib
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from harness.link import FakeImds, FakeKeys
from moto.server import ThreadedMotoServer

from registrar.credentials.aws_identity import BODY, identity_headers
from registrar.credentials.aws_keys import find_keys
from registrar.credentials.sigv4 import AwsKeys
from registrar.errors import AwsIdentityUnavailable

REGION = "eu-central-1"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """A moto server on a port of its own."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def asked(url: str, headers: dict[str, str]) -> tuple[int, str]:
    """Send the proof as a registry does."""
    request = urllib.request.Request(f"{url}/", BODY, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def role_keys(url: str) -> tuple[AwsKeys, str]:
    """Return the keys of a new role's session that is named as the task is, and the role's name."""
    options = {
        "endpoint_url": url,
        "region_name": REGION,
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
    }
    role = f"shop-{secrets.token_hex(4)}"
    trust = {"Version": "2012-10-17", "Statement": []}
    arn = boto3.client("iam", **options).create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust))["Role"][
        "Arn"
    ]
    answer = boto3.client("sts", **options).assume_role(RoleArn=arn, RoleSessionName="task-1")
    keys = answer["Credentials"]
    return AwsKeys(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]), role


def proof(keys: AwsKeys) -> dict[str, str]:
    """Return the headers of a proof of this moment."""
    return identity_headers(keys, REGION, "headcount", "task-1", secrets.token_hex(16), time.time())


def test_stss_answer_names_the_role_and_the_session(moto: str) -> None:
    """The headers that the registrar signs are a GetCallerIdentity request that STS answers."""
    keys, role = role_keys(moto)
    status, text = asked(moto, proof(keys))
    assert (status, f":assumed-role/{role}/task-1</Arn>" in text) == (200, True)


def test_sts_verifies_the_signature(moto: str) -> None:
    """With its checks on, moto accepts the proof, and none with another key or a header changed afterwards."""
    keys, _ = role_keys(moto)
    with verified(moto):
        assert asked(moto, proof(keys))[0] == 200
        forged = AwsKeys(keys.access_key_id, "another", keys.session_token)
        assert asked(moto, proof(forged))[0] == 403
        assert asked(moto, {**proof(keys), "x-registry-instance": "task-2"})[0] == 403


@contextlib.contextmanager
def verified(url: str) -> Iterator[None]:
    """Let moto check the signature of each request in the block, which it does not by itself."""
    reset_auth(url, "0")
    try:
        yield
    finally:
        reset_auth(url, "inf")


def reset_auth(url: str, unchecked: str) -> None:
    """Set how many requests moto takes unchecked."""
    plain = {"content-type": "text/plain"}
    order = urllib.request.Request(f"{url}/moto-api/reset-auth", unchecked.encode(), plain, method="POST")
    urllib.request.urlopen(order, timeout=10).close()


async def test_a_containers_keys(tmp_path: Path) -> None:
    """The endpoint gets the authorization token; the file is read each time, and wins over the variable."""
    token = tmp_path / "token"
    token.write_text("first\n")
    with FakeKeys() as agent:
        environ = {
            **agent.variables,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "old",
        }
        agent.authorization = "first"
        assert await find_keys(environ) == AwsKeys("ASIAFAKE", "secret", "session")
        token.write_text("second\n")
        agent.authorization, agent.keys["Token"] = "second", "renewed"
        assert (await find_keys(environ)).session_token == "renewed"
        agent.authorization = "third"
        with pytest.raises(AwsIdentityUnavailable, match="401 wrong token"):
            await find_keys(environ)


async def test_an_agent_that_restarts_is_asked_again() -> None:
    """Two failures in a row cost a moment; a third is an error with the agent's words."""
    with FakeKeys() as agent:
        agent.failures.extend([(500, "starting"), (503, "starting")])
        assert (await find_keys(agent.variables)).access_key_id == "ASIAFAKE"
        agent.failures.extend([(500, "starting")] * 3)
        with pytest.raises(AwsIdentityUnavailable, match="500 starting"):
            await find_keys(agent.variables)


async def test_an_instances_keys() -> None:
    """IMDSv2 names the role and has its keys; without a role the fix is named."""
    with FakeImds() as imds:
        with pytest.raises(AwsIdentityUnavailable, match="404") as error:
            await find_keys(imds.variables)
        assert "instance profile" in error.value.fix
        imds.role_keys = {"Code": "Success", "AccessKeyId": "ASIAHOST", "SecretAccessKey": "s", "Token": "t"}
        assert await find_keys(imds.variables) == AwsKeys("ASIAHOST", "s", "t")


async def test_what_is_no_document() -> None:
    """An agent that answers with a page, or without keys, is no source; its words are passed on."""
    with FakeKeys() as agent:
        agent.failures.append((200, "<html>"))
        with pytest.raises(AwsIdentityUnavailable, match="no JSON object"):
            await find_keys(agent.variables)
        agent.failures.append(
            (200, '{"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume the role"}')
        )
        with pytest.raises(AwsIdentityUnavailable, match="EC2 cannot assume the role"):
            await find_keys(agent.variables)
