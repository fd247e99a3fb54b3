"""Published configuration: a real Envoy follows files without losing a request, and S3 gets the same objects."""

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from harness.app import turned
from harness.mesh_envoy import envoy_of
from harness.no_tls import NO_TLS
from harness.process import eventually, free_port
from moto.server import ThreadedMotoServer

from meshconfig.definition.admin import Admin
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.listen import Listen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.route import Route
from meshconfig.effective import Caller, Configuration
from meshconfig.resource import Catalog
from registryctl.errors import UsageError
from registryctl.mesh.publisher import Published, compile_for_publish, open_store, publish

pytestmark = pytest.mark.envoy


def mesh_of(**clusters: str) -> Configuration:
    """Return a mesh whose service ``web`` calls ``shop`` by each of these clusters, at its address; the last has it."""
    mesh = Mesh(egress=Listen(port=free_port()), admin=Admin(port=free_port()))
    return with_clusters(mesh, **clusters)


def with_clusters(mesh: Mesh, **clusters: str) -> Configuration:
    """Return the same mesh with other clusters."""
    dependencies = tuple(
        Dependency(name=name, address=address, hosts=(name,), routes=(Route(prefix="/"),), cluster=f"to-{name}")
        for name, address in sorted(clusters.items())
    )
    return Configuration(mesh, {"web": Caller("web", dependencies), "other": Caller("other", dependencies)})


def published(place: str, configuration: Configuration, *, pause: Any = time.sleep, directory: str = "") -> Published:
    """Publish a mesh."""
    with open_store(place) as store:
        snapshot = compile_for_publish(configuration, Catalog())
        return publish(store, configuration, snapshot, pause=pause, directory=directory)


@contextlib.contextmanager
def asking(url: str, answers: Counter[int]) -> Iterator[None]:
    """Send requests one after the other within a block, and count the statuses."""
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(trust_env=False, verify=NO_TLS, timeout=5) as client:
            while not over.is_set():
                answers[client.get(url, headers={"host": "shop"}).status_code] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_an_envoy_follows_files_and_loses_nothing(workplace: Path) -> None:
    """A route is switched from one cluster to another while requests go on; a file that nobody changed stays."""
    place = workplace / "published"
    with turned() as old, turned() as new:
        before = mesh_of(shop=old.endpoint)
        (dependency,) = before.callers["web"].dependencies
        # The same name for the app, another cluster.
        moved = Dependency(
            name="shop", address=new.endpoint, hosts=("shop",), routes=(Route(prefix="/"),), cluster="to-other"
        )
        after = Configuration(before.mesh, {**before.callers, "web": Caller("web", (moved,))})
        first = published(str(place), before, directory=str(place))
        assert (first.failed, first.unchanged) == ({}, 0)
        untouched = (place / "v3/discovery/clusters/other").stat()
        answers: Counter[int] = Counter()
        with envoy_of(workplace, before, "web", published=str(place)) as envoy:
            with asking(f"http://127.0.0.1:{envoy.listener}/", answers):
                eventually(lambda: answers[200] > 0, said=envoy.log.read_text)
                result = published(str(place), after, directory=str(place), pause=lambda _: time.sleep(0.5))
                eventually(lambda: envoy.total("cluster.to-other.upstream_rq_completed") > 10)
                eventually(lambda: envoy.hosts("to-shop") == {})
            assert answers.keys() == {200}, envoy.log.read_text()
        assert result.written["v3/discovery/clusters/web"] == 2
        assert (place / "v3/discovery/clusters/other").stat().st_ino == untouched.st_ino
        assert dependency.address == old.endpoint


def test_an_interrupted_publish_goes_on(tmp_path: Path) -> None:
    """The one that was stopped between two phases leaves both clusters, and the next one comes to the end."""
    before = mesh_of(shop="127.0.0.1:1")
    after = with_clusters(before.mesh, cart="127.0.0.1:2")
    place = str(tmp_path / "published")
    published(place, before)

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        published(place, after, pause=stop)
    assert _clusters(tmp_path) == {"to-shop", "to-cart"}
    assert published(place, after, pause=lambda _: None).failed == {}
    assert _clusters(tmp_path) == {"to-cart"}
    again = published(place, after)
    assert (dict(again.written), again.unchanged) == ({}, 6)
    assert not list(tmp_path.rglob(".*.new"))


def _clusters(directory: Path) -> set[str]:
    body = (directory / "published/v3/discovery/clusters/web").read_bytes()
    return {each["name"] for each in json.loads(body)["resources"]}


def test_an_object_that_fails_fails_alone(tmp_path: Path) -> None:
    """Its service keeps what it has, in every phase; the others are published, and the manifest is of no snapshot."""
    before = mesh_of(shop="127.0.0.1:1")
    place = tmp_path / "published"
    published(str(place), before)
    broken = place / "v3/discovery/routes/web"
    broken.unlink()
    broken.mkdir()
    result = published(str(place), with_clusters(before.mesh, cart="127.0.0.1:2"), pause=lambda _: None)
    assert dict(result.failed) == {"v3/discovery/routes/web": "Is a directory"}
    assert _clusters(tmp_path) == {"to-shop"}
    assert "to-cart" in (place / "v3/discovery/routes/other").read_text()
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["sha256"] == ""
    assert "v3/discovery/routes/web" not in manifest["objects"]


def test_a_directory_has_one_publisher_and_a_settle_that_envoys_can_follow(tmp_path: Path) -> None:
    """A second one is told to wait; a pause that is too short is refused with the least that there may be."""
    configuration = mesh_of(shop="shop.internal:1")
    snapshot = compile_for_publish(configuration, Catalog())
    with (
        open_store(str(tmp_path)) as store,
        pytest.raises(UsageError, match="somebody else publishes"),
        open_store(str(tmp_path)),
    ):
        pass
    with pytest.raises(UsageError, match="--settle 1s is too short") as refused:
        publish(store, configuration, snapshot, settle=1.0)
    assert "5s" in refused.value.fix
    with pytest.raises(UsageError, match="names no bucket"), open_store("s3://"):
        pass


def test_s3_has_the_same_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys are those that itacho asks for; an unchanged object is not written; a missing bucket fails each."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="mesh")
        configuration = mesh_of(shop="127.0.0.1:1")
        result = published("s3://mesh/production/", configuration)
        assert result.failed == {}
        published(str(tmp_path), configuration)
        listed = client.list_objects_v2(Bucket="mesh")["Contents"]
        bodies = {each["Key"]: client.get_object(Bucket="mesh", Key=each["Key"])["Body"].read() for each in listed}
        assert bodies == {
            f"production/{path.relative_to(tmp_path)}": path.read_bytes()
            for path in tmp_path.rglob("*")
            if path.is_file() and path.name != ".lock"
        }
        assert published("s3://mesh/production", configuration).written == {}
        gone = published("s3://gone", configuration)
        assert len(gone.failed) == 7
        assert "NoSuchBucket" in gone.failed["manifest.json"]
    finally:
        server.stop()
