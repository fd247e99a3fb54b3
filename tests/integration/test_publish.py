"""Publishing endpoints for times when every registry is away: by the process that sweeps, and by hand."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from harness.preloaded import run_registry
from harness.process import eventually
from harness.registry import registry
from moto.server import ThreadedMotoServer
from unit.registry.background.test_publisher import filled
from urllib3 import HTTPResponse

from registry.background.publish_target import S3Target
from registry.background.publisher import Publisher


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a bucket of a moto server, which SDKs of this process ask."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        boto3.client("s3").create_bucket(Bucket="fallback")
        yield "fallback"
    finally:
        server.stop()


async def test_an_object_that_is_refused_keeps_no_other_one_back(bucket: str) -> None:
    """By a policy of the bucket, for one: the others are stored, and the reason is S3's own."""
    target = S3Target(bucket, "eu/")
    denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

    def refuse(request: Any, **_: object) -> AWSResponse | None:
        if not request.url.endswith("/cart.json"):
            return None
        body = HTTPResponse(io.BytesIO(denied), preload_content=False)
        return AWSResponse(request.url, 403, {"content-type": "application/xml"}, body)

    target._s3.meta.events.register("before-send.s3.PutObject", refuse)
    publisher = Publisher(target, filled(shop=1, cart=1, user=1), lambda: True)
    await publisher.publish()
    assert sorted(target.digests()) == ["shop.json", "user.json"]
    (reason,) = publisher.failing.values()
    assert "AccessDenied" in reason


def test_the_leader_publishes_and_so_does_the_command(
    database: str, workplace: Path, tmp_path: Path, service: str, bucket: str
) -> None:
    """A directory and a bucket hold what a poll gets; one service that cannot be stored keeps no other one back."""
    directory, other = tmp_path / "published", f"{service}-other"
    directory.mkdir()
    (directory / f"{other}.json").mkdir()
    with registry(database, workplace, publish_to=str(directory), sweep_interval="0.5s") as process:
        for name in (service, other):
            process.register(name, "10.0.0.1:80")
        path = directory / f"{service}.json"
        eventually(path.exists, within=30)
        assert path.read_bytes() == process.poll(service).content
        said = process.log.read_text
        eventually(lambda: "service_not_published" in said() and other in said(), within=20)
        metrics = process.client.get("/metrics").text
        assert "registry_publish_failures 1.0" in metrics
        published = process.poll(service).content
    environment = os.environ | {"REGISTRY_DATABASE_URL": database, "REGISTRY_DATA_DIR": str(tmp_path / "data")}
    done = run_registry("publish", "--to", f"s3://{bucket}/eu", env=environment)
    assert done.returncode == 0, done.stderr
    stored = boto3.client("s3").get_object(Bucket=bucket, Key=f"eu/{service}.json")
    assert (stored["ContentType"], stored["Body"].read()) == ("application/json", published)
    assert json.loads(published)["resources"][0]["cluster_name"] == service
