"""Publishing endpoints for times when every registry is away: by the process that sweeps, and by hand."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from harness.process import eventually, script
from harness.registry import registry
from moto.server import ThreadedMotoServer


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
    command = [*script("registry"), "publish", "--to", f"s3://{bucket}/eu"]
    environment = os.environ | {"REGISTRY_DATABASE_URL": database, "REGISTRY_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    stored = boto3.client("s3").get_object(Bucket=bucket, Key=f"eu/{service}.json")
    assert (stored["ContentType"], stored["Body"].read()) == ("application/json", published)
    assert json.loads(published)["resources"][0]["cluster_name"] == service
