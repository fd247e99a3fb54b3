"""A bad canary among three instances behind two callers, as a new user meets it: found, looked at, and taken back."""

import concurrent.futures
import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.app import Turned, turned
from harness.envoy import Envoy, TokenDirectory, recommended_envoy
from harness.no_tls import NO_TLS
from harness.operator import Said, registryctl
from harness.postgres import Postgres
from harness.process import eventually
from harness.registrar import Registrar, registrar
from harness.registry import Registry, registry

from meshconfig.recommended_bootstrap import registries
from registry_demo.bootstrap import ENDPOINT_HEADER

pytestmark = [pytest.mark.envoy, pytest.mark.proof]

BAR = 25.0
"""Seconds until `stat` shows that a callee fails."""
CALLEE, WELL, TRIPPED = "payments", "basket", "checkout"
"""The service with the canary; its caller whose Envoy is well; and the one whose breaker turns requests away."""
BREAKER = {"max_connections": 1, "max_pending_requests": 1, "max_requests": 1}
BURST = 8
"""Requests at once of the caller with the breaker."""
SECRETS = {"host": CALLEE, "authorization": "Bearer HEADER-SECRET", "cookie": "sid=COOKIE-SECRET"}
PATH = "/pay?token=QUERY-SECRET"


class Users:
    """Requests through an Envoy: when each was sent, which endpoint answered it, and how."""

    def __init__(self, envoy: Envoy, at_once: int, pause: float) -> None:
        self._url = f"http://127.0.0.1:{envoy.listener}{PATH}"
        self._at_once = at_once
        self._pause = pause
        self._over = threading.Event()
        self._client = httpx.Client(trust_env=False, verify=NO_TLS, timeout=10, headers=SECRETS)
        self.answers: list[tuple[float, str, int]] = []

    def since(self, moment: float) -> list[tuple[str, int]]:
        """Return endpoint and status of the requests since a moment."""
        return [(endpoint, status) for sent, endpoint, status in list(self.answers) if sent >= moment]

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """Send requests until the end of the block."""
        thread = threading.Thread(target=self._call)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            self._client.close()

    def _call(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(self._at_once) as pool:
            while not self._over.wait(self._pause):
                list(pool.map(lambda _: self._call_once(), range(self._at_once)))

    def _call_once(self) -> None:
        sent = time.monotonic()
        answer = self._client.get(self._url)
        self.answers.append((sent, answer.headers.get(ENDPOINT_HEADER, ""), answer.status_code))


@dataclass
class Scene:
    """The instances, of which the last is the canary, the users of both callers, and who plays the operator."""

    digests: Registry
    operator: Registry
    apps: list[Turned]
    envoys: dict[str, Envoy]
    registrars: dict[str, Registrar]

    @property
    def canary(self) -> Turned:
        """The instance of the next revision."""
        return self.apps[-1]

    def registryctl(self, *words: str) -> Said:
        """Run the operator's command at a process that gets no digests itself."""
        return registryctl(self.operator.url, *words)

    def lines(self, verb: str) -> dict[str, str]:
        """Return what a verb prints of each caller, in its order."""
        lines = self.registryctl(verb).out.splitlines()[1:]
        return {line.split()[0]: line for line in lines if line.split()[1:2] == [CALLEE]}

    def success(self, caller: str) -> float | None:
        """Return the success of a caller's requests in percent, as `stat` prints it; None while it shows no pair."""
        percent = re.search(r"([\d.]+) %", self.lines("stat").get(caller, ""))
        return None if percent is None else float(percent[1])

    def pair(self, caller: str) -> dict[str, Any]:
        """Return the pair of a caller as the API has it."""
        (pair,) = self.operator.client.get("/v1/traffic", params={"caller": caller, "callee": CALLEE}).json()["pairs"]
        found: dict[str, Any] = pair
        return found


@pytest.fixture
def scene(server: Postgres, workplace: Path) -> Iterator[Scene]:
    """Three instances with registrars, and two callers, each with an app, an Envoy and a registrar beside it."""
    database = server.migrated_database()
    token = TokenDirectory(workplace / "token-of-the-scene")
    with contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(registry(database, workplace)) for _ in range(2))
        apps = [stack.enter_context(turned()) for _ in range(3)]
        for app in apps:
            app.delay = 0.02
            revision = "b" if app is apps[-1] else "a"
            stack.enter_context(
                registrar(workplace, one.url, CALLEE, app.endpoint, revision=revision, admin_listen="off")
            )
        playing = Scene(one, two, apps, {}, {})
        for caller, breaker in ((WELL, None), (TRIPPED, BREAKER)):
            client = registries(f"127.0.0.1:{one.port}", token_directory=str(token.path))
            envoy = stack.enter_context(
                recommended_envoy(workplace, client, CALLEE, caller=caller, resilient=False, breaker=breaker)
            )
            own = stack.enter_context(turned())
            playing.envoys[caller] = envoy
            playing.registrars[caller] = stack.enter_context(
                registrar(
                    workplace,
                    one.url,
                    caller,
                    own.endpoint,
                    admin_listen="off",
                    envoy_admin=f"http://127.0.0.1:{envoy.admin}",
                    errands="debug",
                )
            )
            eventually(lambda: len(playing.envoys[caller].hosts(CALLEE)) == len(apps), within=30)  # noqa: B023  # here
        yield playing


def test_a_new_user_finds_the_guilty_pair_and_the_canary_is_taken_back(scene: Scene) -> None:
    """`stat` within its bar, `edges`, the page and the reasons; a tap without secrets; a shift that ends by itself."""
    well = Users(scene.envoys[WELL], at_once=1, pause=0.02)
    tripped = Users(scene.envoys[TRIPPED], at_once=BURST, pause=0.5)
    with well.calling():
        _see_a_failing_callee_in_time(scene)
        scene.canary.bad_every = 2
        with tripped.calling():
            _find_the_guilty_pair(scene)
            _tap_the_failures(scene)
            _shift_and_see_it_taken_back(scene, well)


def _see_a_failing_callee_in_time(scene: Scene) -> None:
    """Let every instance fail, and measure how soon `stat` says so; digests come each 10 s, by their default."""
    eventually(lambda: scene.success(WELL) == 100.0, within=60, said=lambda: repr(scene.registryctl("stat")))
    for app in scene.apps:
        app.bad_every = 1
    seconds = eventually(lambda: (scene.success(WELL) or 0.0) <= 95.0, within=90, every=0.2)
    for app in scene.apps:
        app.bad_every = 0
    print(f"`registryctl stat` showed the failing callee after {seconds:.1f} s")  # noqa: T201  # the figure of a proof
    assert seconds <= BAR


def _find_the_guilty_pair(scene: Scene) -> None:
    eventually(
        lambda: list(scene.lines("stat"))[:1] == [TRIPPED],
        within=90,
        every=0.5,
        said=lambda: repr(scene.registryctl("stat")),
    )
    stat = scene.lines("stat")
    assert "turned away by a breaker" in stat[TRIPPED], stat
    assert ("answered with an error" in stat[WELL], "breaker" in stat[WELL]) == (True, False), stat
    assert list(scene.lines("edges")) == [TRIPPED, WELL]
    reasons = {caller: scene.pair(caller) for caller in (TRIPPED, WELL)}
    assert reasons[TRIPPED]["reasons"]["overflows"] > 0.5 * reasons[TRIPPED]["failures"], reasons
    assert reasons[WELL]["failures"] > 0
    told = ("overflows", "timeouts", "none_healthy")
    assert [reasons[WELL]["reasons"][name] for name in told] == [0, 0, 0], reasons
    # The page begins with the pair that has the most failures, and says of each pair why.
    page = scene.operator.client.get("/ui/traffic").text
    rows = {row.partition("%")[0]: row.partition("</tr>")[0] for row in page.split('<tr id="pair-')[1:]}
    assert {caller: "breaker" in row for caller, row in rows.items()} == {TRIPPED: True, WELL: False}, rows
    assert all("unhealthy" in row for row in rows.values()), rows


def _tap_the_failures(scene: Scene) -> None:
    words = (
        "--caller",
        WELL,
        "--status",
        "5xx",
        "--for",
        "5s",
        "--max",
        "5",
        "--all-requests",
        "--reason",
        "who fails",
    )
    shown = [scene.registryctl("tap", CALLEE, *words, *output) for output in ((), ("-o", "json"))]
    assert [said.status for said in shown] == [0, 0], shown
    rows = [line.split() for line in shown[0].out.splitlines() if line.startswith("GET")]
    assert rows, shown[0]
    assert {(row[1], row[2]) for row in rows} == {("/pay", "503")}, shown[0]
    traces = shown[1].json["errands"][0]["result"]["tap"]["traces"]
    assert all(trace["request_id"] for trace in traces), traces
    history = scene.registryctl("events", WELL).out
    assert "who fails" in history
    for text in (*(said.out + said.err for said in shown), history, scene.registrars[WELL].log.read_text()):
        assert "SECRET" not in text


def _shift_and_see_it_taken_back(scene: Scene, users: Users) -> None:
    plan = ("--steps", "10,50,100", "--every", "30s", "--abort-above", "1%", "--min-requests", "30")
    began = time.monotonic()
    shifted = scene.registryctl("shift", CALLEE, "--to", "revision=b", *plan, "--wait", "--for", "2m")
    assert shifted.status == 1, shifted
    assert "aborted" in shifted.out.splitlines()[-1], shifted
    canary = scene.canary.endpoint
    eventually(lambda: scene.envoys[WELL].hosts(CALLEE)[canary] == "DRAINING", within=20)
    print(f"taken back after {time.monotonic() - began:.1f} s: {shifted.out.splitlines()[-1]}")  # noqa: T201  # the figure
    # Envoy's workers hear of it a moment after its admin interface.
    time.sleep(1)
    since = time.monotonic()
    eventually(lambda: len(users.since(since)) >= 50, within=30)
    assert {status for _, status in users.since(since)} == {200}
    assert canary not in {endpoint for endpoint, _ in users.since(since)}
