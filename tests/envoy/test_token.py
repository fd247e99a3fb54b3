"""The token that Envoy brings by the recommended bootstrap, and what refusals do to it: by its own statistics."""

import contextlib
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from harness.envoy import Envoy, TokenDirectory, binary, recommended_envoy
from harness.management_stub import ManagementStub, management_stub
from harness.process import eventually, free_port

from meshconfig.recommended_bootstrap import Node, recommended_text, registries
from wire.envoy_token import SDS_FILE

pytestmark = pytest.mark.envoy

_HOST = "10.0.0.1:80"


@pytest.fixture
def token_directory(tmp_path: Path) -> TokenDirectory:
    """A directory with the SDS document, and without a token."""
    return TokenDirectory(tmp_path / "envoy-token")


@contextlib.contextmanager
def polling(
    stub: ManagementStub,
    directory: TokenDirectory,
    service: str,
    *,
    wait: bool = True,
    age: int = 0,
    edge: str | None = None,
) -> Iterator[Envoy]:
    """Run an Envoy that polls the stub with the token of the directory; beside an edge, where one is named."""
    client = registries(
        f"127.0.0.1:{stub.port}",
        edge=edge,
        token_directory=str(directory.path),
        max_connection_duration=float(age) or None,
    )
    with recommended_envoy(directory.path.parent, client, service, wait=wait) as envoy:
        yield envoy


def has_host(envoy: Envoy, service: str) -> bool:
    """Return whether Envoy holds the stub's only host."""
    return list(envoy.hosts(service)) == [_HOST]


def brings(stub: ManagementStub, token: str) -> bool:
    """Return whether the newest poll brought a token."""
    return stub.polls[-1].authorization == f"Bearer {token}"


@pytest.mark.parametrize("edge", [None, "away"])
def test_a_new_token_is_used_at_once_and_fails_no_poll(
    token_directory: TokenDirectory, service: str, edge: str | None
) -> None:
    """Three rotations with overlap: each new token comes on the same connection, no poll fails, no host is lost.

    Where polls go to an aggregate, the filter that brings the token is the aggregate's.
    """
    edge = edge and f"127.0.0.1:{free_port()}"
    tokens = [secrets.token_urlsafe(32) for _ in range(4)]
    token_directory.write(tokens[0])
    with management_stub([_HOST], tokens) as stub, polling(stub, token_directory, service, edge=edge) as envoy:
        eventually(partial(has_host, envoy, service))
        # The first poll may go to an edge that no check has found to be away yet.
        failed = envoy.counter(service, "update_failure")
        assert failed <= (1 if edge else 0)
        for token in tokens[1:]:
            written = time.monotonic()
            token_directory.write(token)
            eventually(partial(brings, stub, token), within=3)
            # What was on its way when the token was written has the token before.
            late = [poll for poll in stub.polls if poll.at > written + 0.5 and poll.authorization != f"Bearer {token}"]
            assert late == []
        assert {poll.status for poll in stub.polls} <= {200, 304}
        assert len({poll.connection for poll in stub.polls}) == 1
        assert envoy.counter(service, "update_failure") == failed
        assert envoy.counter(service, "membership_change") == 1
        assert envoy.total("sds.registry-token.update_success") == len(tokens)
        assert envoy.total("cluster.registry.credential_injector.failed") == 0


def test_a_token_is_in_no_dump_and_no_log(token_directory: TokenDirectory, service: str) -> None:
    """Neither the configuration that Envoy shows nor its log at its finest level has the token."""
    token = secrets.token_urlsafe(32)
    token_directory.write(token)
    with management_stub([_HOST], [token]) as stub, polling(stub, token_directory, service) as envoy:
        eventually(partial(has_host, envoy, service))
        dump = envoy.config_dump()
        assert "credential_injector" in dump
        assert "[redacted]" in dump
        assert token not in dump
        envoy.set_log_level("trace")
        before = len(stub.polls)
        eventually(lambda: len(stub.polls) > before + 2)
        assert brings(stub, token)
        log = envoy.log.read_text()
        assert "[trace]" in log
        assert token not in log


def test_envoy_starts_before_its_token_exists(token_directory: TokenDirectory, service: str) -> None:
    """Refused without a token it goes LIVE by initial_fetch_timeout; it has hosts soon after the token is written."""
    token = secrets.token_urlsafe(32)
    with management_stub([_HOST], [token]) as stub, polling(stub, token_directory, service) as envoy:
        assert envoy.hosts(service) == {}
        assert {(poll.authorization, poll.status) for poll in stub.polls} == {(None, 401)}
        assert envoy.total("sds.registry-token.update_rejected") == 0
        assert "config update rejected" not in envoy.log.read_text()
        token_directory.write(token)
        eventually(partial(has_host, envoy, service), within=3)


def test_an_envoy_that_waits_for_its_token_goes_live_with_hosts(token_directory: TokenDirectory, service: str) -> None:
    """A token that comes within initial_fetch_timeout: Envoy is not LIVE before it, and LIVE with its hosts after."""
    token = secrets.token_urlsafe(32)
    with management_stub([_HOST], [token]) as stub, polling(stub, token_directory, service, wait=False) as envoy:
        eventually(lambda: len(stub.polls) > 1, within=15)
        assert not envoy.live()
        token_directory.write(token)
        eventually(envoy.live, within=3)
        assert has_host(envoy, service)


@pytest.mark.parametrize("status", [401, 403, 421, 429, 503])
def test_a_refusal_never_loses_a_host(token_directory: TokenDirectory, service: str, status: int) -> None:
    """Envoy counts each refusal as a failed update, asks again, and keeps what it has."""
    with management_stub([_HOST]) as stub, polling(stub, token_directory, service) as envoy:
        eventually(partial(has_host, envoy, service))
        stub.status = status
        eventually(lambda: envoy.counter(service, "update_failure") >= 3)
        assert has_host(envoy, service)
        assert envoy.counter(service, "membership_change") == 1
        stub.status = 200
        stub.hosts = [_HOST, "10.0.0.2:80"]
        eventually(lambda: len(envoy.hosts(service)) == 2, within=3)


def test_a_token_that_was_removed_or_emptied_loses_no_host(token_directory: TokenDirectory, service: str) -> None:
    """A removed file leaves the token in use; after an empty one polls come without, and are refused."""
    token = secrets.token_urlsafe(32)
    token_directory.write(token)
    with management_stub([_HOST], [token]) as stub, polling(stub, token_directory, service) as envoy:
        eventually(partial(has_host, envoy, service))
        (token_directory.path / "token").unlink()
        count = len(stub.polls)
        eventually(lambda: len(stub.polls) >= count + 3)
        assert envoy.counter(service, "update_failure") == 0
        token_directory.write("")
        eventually(lambda: envoy.counter(service, "update_failure") >= 2)
        assert stub.polls[-1].authorization is None
        assert has_host(envoy, service)
        token_directory.write(token)
        eventually(lambda: stub.polls[-1].status in (200, 304))
        assert envoy.counter(service, "membership_change") == 1


def test_replaced_connections_fail_no_poll(token_directory: TokenDirectory, service: str) -> None:
    """With max_connection_duration polls move to new connections, also one that is held for longer than that."""
    with management_stub([_HOST]) as stub, polling(stub, token_directory, service, age=1) as envoy:
        stub.hold = 1.5
        eventually(lambda: len({poll.connection for poll in stub.polls}) >= 3, within=15)
        assert envoy.counter(service, "update_failure") == 0
        assert has_host(envoy, service)


@pytest.mark.parametrize("missing", [SDS_FILE, "the directory"])
def test_envoy_exits_without_its_token_directory(tmp_path: Path, missing: str) -> None:
    """Without the directory or its SDS document Envoy refuses its configuration, and names the path."""
    directory = TokenDirectory(tmp_path / "envoy-token").path
    if missing == SDS_FILE:
        (directory / SDS_FILE).unlink()
    else:
        shutil.rmtree(directory)
    here = "127.0.0.1:1"
    client = registries(here, token_directory=str(directory))
    config = tmp_path / "envoy.yaml"
    config.write_text(recommended_text(Node("n", "c", "r"), here, client, []))
    done = subprocess.run([binary(), "--mode", "validate", "-c", config], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(directory) in done.stderr
