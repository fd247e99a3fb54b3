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
    "url", ["http://10.0.0.1/keys", "http://agent.example/keys", "https://127.0.0.1/keys", "/keys", "http://[::1/"]
)
def test_another_url_is_refused(url: str) -> None:
    """The authorization token would be sent to whoever the variable names."""
    with pytest.raises(AwsIdentityUnavailable, match="AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        key_source({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url})


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
