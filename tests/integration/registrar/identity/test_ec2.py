"""An EC2 instance, a plain machine, and what each is asked."""

from pathlib import Path

import pytest
from harness.link import FakeImds

from registrar.identity.ec2 import Ec2
from registrar.identity.ecs_task import EcsTask
from registrar.identity.imds import Imds, endpoint
from registrar.identity.resolver import explain, resolve_identity, resolve_location
from registrar.identity.source import Facts, Location
from registrar.identity.sources import sources
from registrar.identity.spec import EndpointSpec

APP = EndpointSpec.parse(":8080")
NO_TASK = EcsTask(None)


async def test_an_instance_knows_itself() -> None:
    """Address, id, region and zone come from IMDSv2, in one token's life."""
    with FakeImds() as imds:
        all_sources = sources(Facts(), imds.variables)
        identity = await resolve_identity(all_sources)
        location = await resolve_location(APP, all_sources)
        assert [method for method, _ in imds.requests] == ["PUT", "GET", "GET"]
    assert (identity.instance_id, identity.region) == ("i-1234567890abcdef0", "ap-northeast-1")
    assert (identity.zone, identity.revision) == ("ap-northeast-1c", "")
    assert location == Location("10.0.8.17", 8080)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_moment_of_overload_is_waited_for(tmp_path: Path, status: int) -> None:
    """The next answer counts."""
    with FakeImds() as imds:
        imds.failures.extend([(status, "")] * 2)
        answer = await Ec2(imds.variables, NO_TASK, tmp_path).locate(APP, "")
    assert answer.location == Location("10.0.8.17", 8080)


async def test_a_disabled_service_is_asked_once(tmp_path: Path) -> None:
    """403 is final for facts and address; both go on to the next source, and version 1 is never tried."""
    with FakeImds() as imds:
        imds.failures.extend([(403, "")] * 9)
        ec2 = Ec2(imds.variables, NO_TASK, tmp_path)
        assert await ec2.facts() == Facts()
        answer = await ec2.locate(APP, "")
        assert imds.requests == [("PUT", "/latest/api/token")]
    assert answer.location is None
    assert "HttpEndpoint=disabled" in answer.said
    assert "--http-endpoint enabled" in answer.fix


async def test_a_silent_service_costs_one_timeout(tmp_path: Path) -> None:
    """Facts and address share the failure: a start waits for the silence once."""
    with FakeImds() as imds:
        imds.silent.add("/latest/api/token")
        ec2 = Ec2(imds.variables, NO_TASK, tmp_path)
        await ec2.facts()
        assert "no answer within 1s" in (await ec2.locate(APP, "")).said
        assert len(imds.requests) == 1


async def test_a_document_that_is_none_is_no_identity(tmp_path: Path) -> None:
    """The server at that address may be any program."""
    with FakeImds() as imds:
        imds.failures.extend([(200, "token"), (200, "<html>")])
        assert await Ec2(imds.variables, NO_TASK, tmp_path).facts() == Facts()


async def test_a_laptop_waits_for_nothing(tmp_path: Path) -> None:
    """A machine that does not look like EC2 sends no request: its link-local address answers nobody."""
    ec2 = Ec2({}, NO_TASK, tmp_path)
    assert await ec2.facts() == Facts()
    answer = await ec2.locate(APP, "")
    assert (answer.asked, answer.location) == ("", None)
    assert answer.said == "not asked: this machine does not look like EC2"


@pytest.mark.parametrize(
    ("path", "text"),
    [("class/dmi/id/sys_vendor", "Amazon EC2\n"), ("hypervisor/uuid", "ec2a1b2c-0000\n")],
)
async def test_nitro_and_xen_look_like_ec2(tmp_path: Path, path: str, text: str) -> None:
    """Both signs are enough to ask; here the environment forbids it nevertheless."""
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    assert Ec2({}, NO_TASK, tmp_path)._looks_like_ec2()
    forbidden = await Ec2({"AWS_EC2_METADATA_DISABLED": "True"}, NO_TASK, tmp_path).locate(APP, "")
    assert forbidden.said == "not asked: AWS_EC2_METADATA_DISABLED is set"


def test_the_endpoint_is_where_every_sdk_finds_it() -> None:
    """The variables are those of the AWS SDKs."""
    assert endpoint({}) == "http://169.254.169.254"
    assert endpoint({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv6"}) == "http://[fd00:ec2::254]"
    assert endpoint({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1338/"}) == "http://127.0.0.1:1338/"
    assert endpoint({"AWS_EC2_METADATA_DISABLED": "true", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://x"}) == ""


async def test_a_plain_machine_explains_itself() -> None:
    """Every source says in words why it has no part, and the route decides."""
    explanations = await explain(sources(Facts(), {"AWS_EC2_METADATA_DISABLED": "true"}), APP)
    by_name = {explanation.source: explanation for explanation in explanations}
    assert by_name["ecs-metadata"].answered == by_name["aws-api"].answered
    assert "this is no ECS task" in by_name["ecs-metadata"].answered
    assert by_name["vm"].asked
    assert by_name["vm"].chosen or by_name["vm"].fix


async def test_a_token_is_renewed_before_it_ends() -> None:
    """A reload hours later asks with a token of its own."""
    with FakeImds() as imds:
        client = Imds(imds.url)
        await client.address()
        client._token_ends = 0.0
        assert await client.address() == "10.0.8.17"
        assert [method for method, _ in imds.requests] == ["PUT", "GET"] * 2
