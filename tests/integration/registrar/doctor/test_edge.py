"""What `registrar doctor` says of the edge."""

from pathlib import Path

import msgspec
import pytest
from harness.fake_app import FakeApp

from registrar.config.fallback_url import FallbackUrl
from registrar.config.listen import ListenAddress
from registrar.config.settings import Service, Settings
from registrar.diagnostic import Diagnostic, Severity
from registrar.doctor.edge import examine_edge, polled_services
from registrar.edge.disk_cache import DiskCache, Record
from registrar.identity.spec import EndpointSpec

EDGE = Settings(edge_listen=ListenAddress("127.0.0.1", 9903))


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with a limit of 8, and a process that has six instances."""
    (tmp_path / "sys/fs/inotify").mkdir(parents=True)
    (tmp_path / "sys/fs/inotify/max_user_instances").write_text("8\n")
    descriptors = tmp_path / "17" / "fd"
    descriptors.mkdir(parents=True)
    for number in range(6):
        (descriptors / str(number)).symlink_to("anon_inode:inotify")
    (descriptors / "9").symlink_to("/dev/null")
    return tmp_path


async def test_an_edge_with_a_disk(tmp_path: Path, proc: Path) -> None:
    """Its directory is tried, and nothing is left there."""
    section = await examine_edge(EDGE, {"STATE_DIRECTORY": f"{tmp_path}/state:/other"}, proc)
    assert [each.severity for each in section.diagnostics] == [Severity.NOTE, Severity.OK]
    assert list((tmp_path / "state" / "edge").iterdir()) == []


async def test_what_is_missing_is_said(tmp_path: Path, proc: Path) -> None:
    """No edge, no directory, and one that cannot be written."""
    (off,) = (await examine_edge(Settings(), {}, proc)).diagnostics
    assert (off.severity, "REGISTRAR_EDGE_LISTEN" in off.fix) == (Severity.NOTE, True)
    _, forgetful = (await examine_edge(EDGE, {}, proc)).diagnostics
    assert (forgetful.severity, "REGISTRAR_STATE_DIRECTORY" in forgetful.fix) == (Severity.WARN, True)
    (tmp_path / "state").write_text("in the way")
    _, broken = (await examine_edge(EDGE, {"STATE_DIRECTORY": f"{tmp_path}/state"}, proc)).diagnostics
    assert broken.severity is Severity.FAIL


async def test_inotify_instances_that_run_out(proc: Path) -> None:
    """Files of endpoints take one each; the warning comes before the last one."""
    (proc / "17/fd/6").symlink_to("anon_inode:inotify")
    warning = (await examine_edge(Settings(), {}, proc)).diagnostics[-1]
    assert (warning.severity, "7 of 8" in warning.text) == (Severity.WARN, True)
    assert len((await examine_edge(Settings(), {}, proc / "nowhere")).diagnostics) == 1


async def _listener(answer: bytes) -> Diagnostic:
    """Return what is said of a program that answers the probe so."""
    async with FakeApp(answer) as app:
        section = await examine_edge(Settings(edge_listen=ListenAddress("127.0.0.1", app.port)), {}, Path("/nowhere"))
        return section.diagnostics[0]


async def test_the_program_at_the_address_of_an_edge() -> None:
    """An edge that is well, one that sends its Envoys away, and another program are told apart; each has its fix."""
    well = await _listener(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n")
    assert (well.severity, "answers" in well.text) == (Severity.OK, True)
    problem = b'{"title":"Unavailable","status":503,"detail":"the registry refuses this registrar"}'
    head = b"HTTP/1.1 503 No\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n\r\n" % len(problem)
    refused = await _listener(head + problem)
    assert (refused.severity, "refuses this registrar" in refused.text) == (Severity.WARN, True)
    other = await _listener(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
    assert (other.severity, "is no edge" in other.text, "free port" in other.fix) == (Severity.FAIL, True, True)


async def test_the_fallback_is_asked() -> None:
    """One that cannot be reached, or has no object of the service, is a warning with its URL."""
    services = (Service(service="shop", endpoint=EndpointSpec.parse(":80")),)
    for answer, word in ((b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "403"), (None, "")):
        async with FakeApp(answer or b"") as app:
            url = f"http://127.0.0.1:{app.port if answer else 1}/{{service}}.json"
            settings = msgspec.structs.replace(EDGE, services=services, edge_fallback=FallbackUrl.parse(url))
            said = (await examine_edge(settings, {}, Path("/nowhere"))).diagnostics[-1]
        assert (said.severity, "/shop.json" in said.text, word in said.text) == (Severity.WARN, True, True)
        assert "REGISTRY_PUBLISH_TO" in said.fix


def test_services_that_envoys_have_polled_for(tmp_path: Path) -> None:
    """They are on the disk of the edge; clusters and routes are none of them."""
    disk = DiskCache(tmp_path / "edge")
    disk.write(Record(("endpoints", "shop:v2", "", ""), "db:1", 1.0, b"{}"))
    disk.write(Record(("clusters", "*", "envoy-1", "web"), "db:1.1", 1.0, b"{}"))
    environ = {"STATE_DIRECTORY": str(tmp_path)}
    assert polled_services(EDGE, environ) == ["shop:v2"]
    assert polled_services(Settings(), environ) == []
