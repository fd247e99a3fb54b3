"""The source of the AWS keys that an environment names."""

import asyncio

import pytest

from registrar.credentials.aws_keys import ENVIRONMENT, INSTANCE, find_keys, key_source
from registrar.errors import AwsIdentityUnavailable

KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}
RELATIVE = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/abc"}


def test_the_order_is_that_of_the_sdks() -> None:
    """Keys in the environment win over the container's, and those over the instance's."""
    assert key_source({**KEYS, **RELATIVE}) is ENVIRONMENT
    assert key_source(RELATIVE).url == "http://169.254.170.2/v2/credentials/abc"
    assert key_source({}) is INSTANCE


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9911/keys",
        "http://localhost/keys",
        "http://[::1]:9911/keys",
        "http://169.254.170.23/v1/credentials",
        "http://[fd00:ec2::23]/v1/credentials",
    ],
)
def test_an_agents_url(url: str) -> None:
    """Loopback and the agents of ECS and EKS may have keys."""
    assert key_source({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url}).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/keys",
        "http://agent.example/keys",
        "https://127.0.0.1/keys",
        "/keys",
        "http://[::1/",
        "http://127.0.0.1@agent.example/keys",
        "http://agent.example@127.0.0.1/keys",
        "http://127.0.0.1:99999/keys",
        "http://127.0.0.1/ke ys",
    ],
)
def test_another_url_is_refused(url: str) -> None:
    """The authorization token would be sent to whoever the variable names."""
    with pytest.raises(AwsIdentityUnavailable, match="AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        key_source({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url})


@pytest.mark.parametrize("path", ["@agent.example/keys", ".agent.example/keys", ":80@agent.example/"])
def test_a_relative_url_leads_nowhere_else(path: str) -> None:
    """It is a path of the ECS agent's."""
    with pytest.raises(AwsIdentityUnavailable, match="AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        key_source({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": path})


def test_an_authorization_that_no_header_can_have_is_not_quoted() -> None:
    """The message does not contain it, and nothing is sent."""
    environ = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/keys",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "s3cret\r\nx: y",
    }
    with pytest.raises(AwsIdentityUnavailable, match="AWS_CONTAINER_AUTHORIZATION_TOKEN") as error:
        asyncio.run(find_keys(environ))
    assert "s3cret" not in str(error.value)


def test_half_of_a_pair_is_an_error() -> None:
    """The message names the variable that is missing."""
    with pytest.raises(AwsIdentityUnavailable, match="AWS_SECRET_ACCESS_KEY is not set"):
        key_source({"AWS_ACCESS_KEY_ID": "AKID"})


def test_no_source_is_named() -> None:
    """Where IMDS is disabled, nothing is asked and the fix is named."""
    with pytest.raises(AwsIdentityUnavailable, match="AWS_EC2_METADATA_DISABLED") as error:
        key_source({"AWS_EC2_METADATA_DISABLED": "true"})
    assert "taskRoleArn" in error.value.fix


def test_keys_that_would_forge_a_header_are_refused_unseen() -> None:
    """The message does not contain them."""
    with pytest.raises(AwsIdentityUnavailable) as error:
        asyncio.run(find_keys({**KEYS, "AWS_SESSION_TOKEN": "s3cret\r\nx: y"}))
    assert "s3cret" not in str(error.value)
