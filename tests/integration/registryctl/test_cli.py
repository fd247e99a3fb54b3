"""`registryctl` against a real registry: what operators see, change and are refused."""

import contextlib
import datetime as dt
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from harness.operator import registryctl
from harness.process import eventually, free_port
from harness.registry import Registry, registry

from registryctl.client import ApiClient
from registryctl.settings import Settings

COMMAND = [sys.executable, "-m", "registryctl.cli"]


@pytest.fixture
def shop(shared_registry: Registry, service: str) -> str:
    """A service with a healthy endpoint in each of two zones, an unhealthy one and a canary."""
    for number, zone in ((1, "za"), (2, "zb")):
        shared_registry.register(service, f"10.9.0.{number}:80", zone=zone, region="r", revision="1.0", ttl=600)
    shared_registry.register(service, "10.9.0.3:80", zone="za", health="UNHEALTHY", detail="GET /: 503", ttl=600)
    shared_registry.register(service, "10.9.0.4:80", zone="zb", canary=True, revision="1.1", ttl=600)
    return service


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table, its head left out."""
    return [line.split() for line in text.splitlines()[1:]]


def test_services_are_listed_with_their_statuses(shared_registry: Registry, shop: str) -> None:
    """For people a row with counts; for scripts the API's documents, unchanged, in one array."""
    said = registryctl(shared_registry.url, "services", shop)
    assert said.status == 0
    assert rows(said.out) == [[shop, "4", "4", "3", "0", "1", "0", "0", "0"]]
    services = registryctl(shared_registry.url, "services", shop, "-o", "json").json["services"]
    assert services == shared_registry.client.get("/v1/services", params={"prefix": shop}).json()["services"]


def test_one_service_is_shown_by_zone(shared_registry: Registry, shop: str) -> None:
    """`service` counts by zone and names what operators set."""
    registryctl(shared_registry.url, "drain", shop, "10.9.0.1:80", "--reason", "disk")
    said = registryctl(shared_registry.url, "service", shop).out
    assert re.search(r"^r +za +0 +0 +0 +1 +0 +0$", said, re.MULTILINE)
    assert "10.9.0.1:80: drained by ann from 127.0.0.1: disk" in said
    assert registryctl(shared_registry.url, "service", shop, "-o", "json").json["name"] == shop


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ((), {1, 2, 3, 4}),
        (("--status", "unhealthy"), {3}),
        (("--status", "HEALTHY", "--zone", "zb"), {2, 4}),
        (("--revision", "1.1"), {4}),
        (("--canary",), {4}),
        (("--no-canary", "--zone", "zb"), {2}),
        (("--instance", "i-10.9.0.2:80"), {2}),
    ],
)
def test_endpoints_are_filtered(
    shared_registry: Registry, shop: str, words: tuple[str, ...], numbers: set[int]
) -> None:
    """Each filter of the API is an option; the table and the JSON have the same endpoints."""
    expected = {f"10.9.0.{number}:80" for number in numbers}
    said = registryctl(shared_registry.url, "endpoints", shop, *words)
    assert {row[0] for row in rows(said.out)} == expected
    endpoints = registryctl(shared_registry.url, "endpoints", shop, *words, "-o", "json").json["endpoints"]
    assert {endpoint["endpoint"] for endpoint in endpoints} == expected
    assert all(endpoint.keys() >= {"lease_expires_at", "override", "status"} for endpoint in endpoints)


def test_lists_go_through_all_pages(shared_registry: Registry, service: str) -> None:
    """More endpoints than the largest page of the API are all there, once."""
    beats = [
        {
            "service": service,
            "endpoint": f"10.8.{number // 250}.{number % 250 + 1}:80",
            "registration": {"instance_id": f"i-{number}", "incarnation": 1, "ttl": 600},
        }
        for number in range(1003)
    ]
    for part in (beats[:400], beats[400:800], beats[800:]):
        assert shared_registry.client.post("/v1/heartbeats", json={"heartbeats": part}).status_code == 200
    endpoints = registryctl(shared_registry.url, "endpoints", service, "-o", "json").json["endpoints"]
    assert len({endpoint["endpoint"] for endpoint in endpoints}) == len(endpoints) == 1003
    assert len(rows(registryctl(shared_registry.url, "endpoints", service).out)) == 1003


def test_an_explanation_is_an_answer_by_its_exit_status(shared_registry: Registry, shop: str) -> None:
    """0 when the endpoint gets traffic, 1 when it gets none, 3 when there never was one."""
    well = registryctl(shared_registry.url, "explain", shop, "10.9.0.1:80")
    assert (well.status, "gets traffic" in well.out) == (0, True)
    ill = registryctl(shared_registry.url, "explain", shop, "10.9.0.3:80")
    assert ill.status == 1
    assert "its registrar reports UNHEALTHY (GET /: 503)" in ill.out
    assert "first registration as UNHEALTHY" in ill.out
    explained = registryctl(shared_registry.url, "explain", shop, "10.9.0.3:80", "-o", "json")
    assert (explained.status, explained.json["served"]) == (1, False)
    nobody = registryctl(shared_registry.url, "explain", shop, "10.9.0.77:80")
    assert (nobody.status, "was never registered" in nobody.err) == (3, True)


def override(process: Registry, service: str, endpoint: str = "10.9.0.1:80") -> dict[str, Any] | None:
    """Return the override of an endpoint."""
    value: dict[str, Any] | None = process.client.get(f"/v1/services/{service}/endpoints/{endpoint}").json()["override"]
    return value


def test_a_drain_is_seen_in_discovery_and_taken_back(shared_registry: Registry, shop: str) -> None:
    """Envoys are told DRAINING, the history has who and why, and undrain undoes it."""
    said = registryctl(shared_registry.url, "drain", shop, "10.9.0.1:80", "-r", "bad disk", "--for", "2h")
    assert (said.status, "DRAINING" in said.out, "bad disk" in said.out) == (0, True, True)
    assert shared_registry.statuses(shop)["10.9.0.1:80"] == "DRAINING"
    events = registryctl(shared_registry.url, "events", shop, "--kind", "overridden", "-o", "json").json["events"]
    assert [(event["actor"], event["reason"]) for event in events] == [("ann from 127.0.0.1", "drain: bad disk")]
    value = override(shared_registry, shop)
    assert value is not None
    assert 7100 < value["expires_at"] - value["set_at"] <= 7200
    assert registryctl(shared_registry.url, "undrain", shop, "10.9.0.1:80").status == 0
    assert shared_registry.statuses(shop)["10.9.0.1:80"] == "HEALTHY"
    again = registryctl(shared_registry.url, "undrain", shop, "10.9.0.1:80")
    assert (again.status, "nothing to take back" in again.err) == (3, True)


def test_one_part_of_an_override_leaves_the_others(shared_registry: Registry, shop: str) -> None:
    """A weight on a drained endpoint does not undrain it; a part that is taken back leaves the rest."""
    place = (shop, "10.9.0.1:80")
    registryctl(shared_registry.url, "drain", *place, "-r", "disk", "--for", "1h")
    said = registryctl(shared_registry.url, "weight", *place, "5", "-r", "slow")
    assert "drained, weight 5 by ann" in said.out
    registryctl(shared_registry.url, "canary", *place, "no", "-r", "not this one")
    value = override(shared_registry, shop)
    assert value is not None
    assert (value["drain"], value["weight"], value["canary"], value["reason"]) == (True, 5, False, "not this one")
    # The end that it had, but for a second or, on a busy machine, a few with each of the two: by the Date of an answer.
    assert 3500 < value["expires_at"] - value["set_at"] < 3620
    registryctl(shared_registry.url, "undrain", *place)
    registryctl(shared_registry.url, "weight", *place, "--clear")
    value = override(shared_registry, shop)
    assert value is not None
    assert (value["drain"], value["weight"], value["canary"]) == (False, None, False)
    registryctl(shared_registry.url, "canary", *place, "--clear")
    assert override(shared_registry, shop) is None


def test_pauses_say_who_why_and_until_when(shared_registry: Registry, shop: str) -> None:
    """A pause has a reason and an end, is shown, and is taken back once."""
    said = registryctl(shared_registry.url, "pause", shop, "-r", "switch", "--for", "30m")
    assert re.search(rf"paused in {shop} for another (29|30)m, by ann from 127.0.0.1: switch", said.out)
    # A minute may end between the two.
    assert f"paused in {shop} for another" in registryctl(shared_registry.url, "expiry").out
    assert said.err == ""
    misspelt = registryctl(shared_registry.url, "pause", f"{shop}s", "-r", "switch", "--for", "1m")
    assert (misspelt.status, f"no service {shop}s is known now" in misspelt.err) == (0, True)
    registryctl(shared_registry.url, "resume", f"{shop}s")
    document = registryctl(shared_registry.url, "expiry", "-o", "json").json
    assert shop in {pause["service"] for pause in document["pauses"]}
    assert registryctl(shared_registry.url, "resume", shop).status == 0
    assert registryctl(shared_registry.url, "resume", shop).status == 3


def test_events_come_the_newest_last(shared_registry: Registry, shop: str) -> None:
    """For people as a log reads, and no more than are asked for; for scripts as the API has them."""
    registryctl(shared_registry.url, "drain", shop, "10.9.0.1:80", "-r", "disk", "--actor", "bob")
    lines = registryctl(shared_registry.url, "events", shop, "-n", "2").out.splitlines()
    assert [line.split()[1] for line in lines] == ["registered", "overridden"]
    assert lines[-1].endswith("by bob from 127.0.0.1")
    events = registryctl(shared_registry.url, "events", shop, "--since", "1h", "-o", "json").json["events"]
    assert [event["kind"] for event in events] == ["overridden", *["registered"] * 4]
    assert registryctl(shared_registry.url, "events", shop, "--by", "bob", "-o", "json").json["events"] == events[:1]


def test_subscribers_are_listed(shared_registry: Registry, shop: str) -> None:
    """Every Envoy that polls is listed with the version that it holds against ours."""
    shared_registry.poll(shop)
    said = registryctl(shared_registry.url, "subscribers", shop).out
    assert rows(said)[0][0] == "test"
    listed = registryctl(shared_registry.url, "subscribers", shop, "-o", "json").json["subscribers"]
    assert [(subscriber["node_id"], subscriber["service"], subscriber["current_version"]) for subscriber in listed] == [
        ("test", shop, 4)
    ]


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("endpoints", "no-such-service"), 3, "Not found: service no-such-service never had an endpoint"),
        (("weight", "{shop}", "10.9.0.1:80", "0", "-r", "x"), 2, "weight: 0 is not from 1 to 10000"),
        (
            ("weight", "{shop}", "10.9.0.1:80"),
            2,
            "neither a value nor --clear name what to set, or --clear",
        ),
        (("weight", "{shop}", "10.9.0.1:80", "5"), 2, "say why with --reason"),
        (("canary", "{shop}", "10.9.0.1:80", "maybe", "-r", "x"), 2, "neither yes nor no"),
        (("drain", "{shop}", "nowhere", "-r", "x"), 4, "has no port; write ip:port"),
        (("drain", "{shop}", "10.9.0.1:80", "-r", "x", "--for", "soon"), 2, "--for: 'soon' is not a duration"),
        (("drain", "{shop}", "10.9.0.1:80"), 2, "Missing option '--reason'"),
        (("services", "-o", "yaml"), 2, "--output: 'yaml' is none of table, json"),
        (("services", "--url", "registry:8080"), 2, "--url: 'registry:8080' is no URL like http://10.0.0.9:8080"),
        (("services", "--timeout", "0"), 2, "--timeout: '0' is not longer than 0; give a duration like 5s"),
        (("check", "--envoy", "localhost"), 2, "--envoy: 'localhost' is no URL"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_refusals_have_a_status_and_say_why(
    shared_registry: Registry, shop: str, words: tuple[str, ...], status: int, text: str
) -> None:
    """The exit status tells the kind of refusal, standard error what was wrong, and nothing is on standard output."""
    said = registryctl(shared_registry.url, *(word.format(shop=shop) for word in words))
    assert (said.status, said.out) == (status, "")
    assert text in re.sub(r"[\s│]+", " ", said.err)


def test_a_misspelt_variable_is_refused() -> None:
    """It would look as if it worked."""
    said = registryctl(None, "services", REGISTRYCTL_ULR="http://10.0.0.9:8080")
    assert (said.status, "REGISTRYCTL_ULR: unknown variable" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "empty"),
    [
        (("shift", "shop", "--to", ""), "--to"),
        (("stat", ""), "SERVICE"),
        (("drain", "shop", "10.9.0.1:80", "", "-r", "x"), "IP:PORT"),
        (("services", "--url", ""), "--url"),
        (("--url", "", "services"), "--url"),
    ],
)
def test_an_empty_value_is_refused(words: tuple[str, ...], empty: str) -> None:
    """A shell's variable that is not set would mean all services, another registry, or nothing that fails."""
    said = registryctl(f"http://127.0.0.1:{free_port()}", *words)
    assert (said.status, said.out) == (2, "")
    assert f"registryctl: {empty}: received an empty value" in said.err


def test_options_of_a_new_shift_want_its_group() -> None:
    """They are not left aside in a command that then shows the shift of before, with success."""
    url = f"http://127.0.0.1:{free_port()}"
    for options in (("--steps", "5,100"), ("--every", "1m"), ("--abort-above", "2%"), ("--min-requests", "5")):
        said = registryctl(url, "shift", "shop", "--wait", *options)
        assert (said.status, f"shift: received {options[0]} without --to" in said.err) == (2, True)
        assert registryctl(url, "shift", *options).status == 2


def test_a_registry_that_is_away_is_exit_status_5() -> None:
    """Nobody answers: it says where it asked and how to name another address."""
    url = f"http://127.0.0.1:{free_port()}"
    said = registryctl(url, "services")
    assert said.status == 5
    assert f"no registry answers: {url}: Connection refused" in said.err
    assert "--url or REGISTRYCTL_URL" in said.err


def test_a_registry_that_hangs_is_not_one_at_another_address() -> None:
    """What was sent may be done all the same; a read is told what it may wait for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        read = registryctl(url, "services", "--timeout", "300ms")
        write = registryctl(url, "drain", "shop", "10.9.0.1:80", "-r", "x", "--timeout", "300ms")
    assert (read.status, write.status) == (5, 5)
    assert "it may wait for PostgreSQL" in read.err
    assert "it may be done all the same: look before you repeat it" in write.err
    assert "name its address" not in read.err + write.err


def test_an_answer_that_trickles_ends() -> None:
    """In its head, or in a body that would be whole without its end: a byte each moment is no wait for any of them."""
    for beginning in (b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"):
        with socket.create_server(("127.0.0.1", 0)) as slow, ThreadPoolExecutor(1) as proxy:

            def trickle(server: socket.socket, head: bytes) -> None:
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(head)
                    while True:
                        connection.sendall(b" ")
                        time.sleep(0.05)

            trickling = proxy.submit(trickle, slow, beginning)
            said = registryctl(f"http://127.0.0.1:{slow.getsockname()[1]}", "services", "--timeout", "200ms")
            trickling.result(30)
        assert (said.status, "no answer in time" in said.err) == (5, True), said


def test_the_next_address_is_asked_when_one_is_away(shared_registry: Registry, shop: str) -> None:
    """Reads and writes go to the first address that answers."""
    urls = f"http://127.0.0.1:{free_port()},{shared_registry.url}"
    assert registryctl(urls, "services", shop).status == 0
    assert registryctl(urls, "drain", shop, "10.9.0.1:80", "-r", "x").status == 0


def test_a_service_is_deregistered_by_force_only(shared_registry: Registry, shop: str) -> None:
    """A refusal of the guard is exit status 4 with its reason, and changes nothing; --force does it."""
    refused = registryctl(shared_registry.url, "deregister", shop, "-r", "retired")
    assert (refused.status, "registryctl: Too many at once: " in refused.err) == (4, True)
    assert shared_registry.statuses(shop)["10.9.0.1:80"] == "HEALTHY"
    done = registryctl(shared_registry.url, "deregister", shop, "-r", "retired", "--force", "-o", "json")
    assert (done.status, len(done.json["endpoints"])) == (0, 4)
    assert "HEALTHY" not in shared_registry.statuses(shop).values()
    events = registryctl(shared_registry.url, "events", shop, "--kind", "expelled", "-o", "json").json["events"]
    assert {(event["actor"], "retired" in event["reason"]) for event in events} == {("ann from 127.0.0.1", True)}


def test_an_endpoint_is_deregistered(shared_registry: Registry, shop: str) -> None:
    """It is out of rotation at once."""
    said = registryctl(shared_registry.url, "deregister", shop, "10.9.0.1:80", "-r", "retired")
    assert (said.status, "is deregistered" in said.out) == (0, True)
    assert shared_registry.statuses(shop).get("10.9.0.1:80", "DRAINING") == "DRAINING"
    assert registryctl(shared_registry.url, "deregister", shop, "10.9.0.77:80", "-r", "x").status == 3


def test_a_wall_clock_that_is_set_does_not_move_the_registrys_time(
    shared_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ages are by the registry's clock, and what passes since its answer is by a clock that nobody sets."""
    client = ApiClient(Settings((shared_registry.url,), 5.0, "test"))
    with contextlib.closing(client):
        asked = client.ask_time()
        wall_clock = time.time
        monkeypatch.setattr(time, "time", lambda: wall_clock() + 3600)
        assert 0 <= client.now - asked < 60


def test_help_answers_without_the_heavy_libraries() -> None:
    """`--help` imports neither the HTTP client nor the server's libraries."""
    code = "import sys, registryctl.cli; print([m for m in ('httpx', 'fastapi', 'sqlalchemy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@contextlib.contextmanager
def following(url: str, *words: str) -> Iterator[list[dict[str, Any]]]:
    """Run `events --follow` with JSON lines in a process of its own; yield what it has printed so far."""
    env = os.environ | {"REGISTRYCTL_URL": url}
    command = [*COMMAND, "events", *words, "--follow", "-o", "json"]
    child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen: list[dict[str, Any]] = []
    assert child.stdout is not None
    assert child.stderr is not None
    reader = threading.Thread(target=lambda: seen.extend(map(json.loads, child.stdout or ())), daemon=True)
    reader.start()
    try:
        yield seen
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 130
        reader.join(5)
        child.stdout.close()
        child.stderr.close()


@pytest.mark.proof
def test_following_goes_on_across_a_restart(database: str, tmp_path: Path, service: str) -> None:
    """Events from before, during and after a restart of the registry are printed once each, in order."""
    port = free_port()
    listen = f"127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        with registry(database, tmp_path, listen=listen) as process:
            process.register(service, "10.7.0.1:80")
            seen = stack.enter_context(following(process.url, service, "--since", "1h"))
            eventually(lambda: len(seen) == 1, within=10, said=lambda: str(seen))
            process.register(service, "10.7.0.2:80")
            eventually(lambda: len(seen) == 2, within=10, said=lambda: str(seen))
        with registry(database, tmp_path, listen=listen) as process:
            process.register(service, "10.7.0.3:80")
            eventually(lambda: len(seen) >= 3, within=15, said=lambda: str(seen))
            time.sleep(0.5)
    assert [event["endpoint"] for event in seen] == [f"10.7.0.{number}:80" for number in (1, 2, 3)]


def test_a_terminal_gets_signs_and_colour_and_a_pipe_gets_neither(shared_registry: Registry, shop: str) -> None:
    """On a terminal a status has a sign and a colour; NO_COLOR takes the colour, a pipe both."""
    assert not re.search(r"[●✗\x1b]", registryctl(shared_registry.url, "endpoints", shop).out)
    coloured = _in_terminal(shared_registry.url, "endpoints", shop)
    assert "\x1b[32m● HEALTHY" in coloured
    assert "\x1b[31m✗ UNHEALTHY" in coloured
    plain = _in_terminal(shared_registry.url, "endpoints", shop, NO_COLOR="1")
    assert "● HEALTHY" in plain
    assert not re.search(r"\x1b\[3\d", plain)


def _in_terminal(url: str, *words: str, **more: str) -> str:
    """Return what `registryctl` writes to a terminal."""
    master, slave = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    env = inherited | {"REGISTRYCTL_URL": url, "TERM": "xterm-256color", "COLUMNS": "150"} | more
    child = subprocess.Popen([*COMMAND, *words], env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    written = b""
    with contextlib.suppress(OSError):
        while part := os.read(master, 65_536):
            written += part
    os.close(master)
    assert child.wait(10) == 0
    return written.decode()


def test_options_may_stand_before_the_verb(shared_registry: Registry, shop: str) -> None:
    """Options behind the verb win; a format that the verb does not know is refused as ever."""
    nowhere = "http://127.0.0.1:1"
    said = registryctl(nowhere, "--url", shared_registry.url, "-o", "json", "service", shop)
    assert (said.status, said.json["name"]) == (0, shop)
    again = registryctl(
        None, "--url", nowhere, "-o", "json", "service", shop, "--url", shared_registry.url, "-o", "table"
    )
    assert (again.status, again.out.startswith(shop)) == (0, True)
    assert registryctl(shared_registry.url, "--actor", "eve", "drain", shop, "10.9.0.1:80", "-r", "x").status == 0
    value = override(shared_registry, shop)
    assert value is not None
    assert value["actor"].startswith("eve")
    wrong = registryctl(shared_registry.url, "-o", "short", "service", shop)
    assert (wrong.status, "'short' is none of table, json" in wrong.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("services", "{shop}"), "/v1/services?prefix={shop}"),
        (("endpoints", "{shop}"), "/v1/services/{shop}/endpoints"),
        (("events", "{shop}"), "/v1/events?service={shop}"),
        (("subscribers", "{shop}"), "/v1/subscribers?service={shop}"),
        (("expiry",), "/v1/expiry"),
        (("service", "{shop}"), "/v1/services/{shop}"),
    ],
    ids=str,
)
def test_json_is_the_document_of_the_api(
    shared_registry: Registry, shop: str, words: tuple[str, ...], path: str
) -> None:
    """A script that reads one reads the other; a list keeps what the API says beside its items."""
    printed = registryctl(shared_registry.url, *(word.format(shop=shop) for word in words), "-o", "json").json
    document = shared_registry.client.get(path.format(shop=shop)).json()
    moving = {"lease_expires_at", "lease_renewed_at"}
    assert _without(printed, moving) == _without(document, moving)


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(each, names) for name, each in value.items() if name not in names}
    return [_without(each, names) for each in value] if isinstance(value, list) else value


def test_the_past_is_shown_as_the_history_has_it(shared_registry: Registry, shop: str) -> None:
    """`--at` tells what was listed then, by how long ago or by a time in UTC; and refuses what the history has not."""

    def run(*arguments: str) -> Any:
        return registryctl(shared_registry.url, *arguments)

    time.sleep(1.1)
    before = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    time.sleep(0.1)
    shared_registry.register(shop, "10.9.0.1:80", health="UNHEALTHY", detail="GET /: 500", ttl=600)
    assert run("endpoints", shop, "--status", "healthy").out.count("HEALTHY") == 2
    past = rows(run("endpoints", shop, "--at", before).out)
    assert [row[:3] for row in past[:3]] == [
        ["10.9.0.1:80", "HEALTHY", "i-10.9.0.1:80"],
        ["10.9.0.2:80", "HEALTHY", "i-10.9.0.2:80"],
        ["10.9.0.3:80", "UNHEALTHY", "i-10.9.0.3:80"],
    ]
    assert run("service", shop, "--at", before).out.splitlines()[1].split() == [
        shop,
        "4",
        *["3", "0", "1", "0", "0", "0"],
    ]
    assert rows(run("services", shop, "--at", "10m").out)[0][:2] == [shop, "0"]
    now = run("explain", shop, "10.9.0.1:80")
    then = run("explain", shop, "10.9.0.1:80", "--at", before)
    assert (now.status, then.status) == (1, 0)
    assert "HEALTHY  got traffic  at " in then.out
    assert "GET /: 500" not in then.out
    assert json.loads(run("-o", "json", "endpoints", shop, "--at", before).out)["endpoints"][0]["status"] == "HEALTHY"
    assert run("explain", shop, "10.9.0.99:80", "--at", before).status == 3
    for wrong in (("--at", "yesterday"), ("--at", "1m", "--zone", "za")):
        assert run("endpoints", shop, *wrong).status == 2
