"""The push check, in time that the test turns."""

import pytest
from harness.probing import probe

from registrar.checks.check import CheckTarget
from registrar.checks.inbox import Inbox
from registrar.checks.push import PushCheck, PushOptions
from registrar.checks.result import Outcome
from registrar.config.conversion import convert
from registrar.duration import Duration


class Clock:
    """Seconds that pass when they are told to."""

    now = 100.0

    def __call__(self) -> float:
        """Return the current second."""
        return self.now


async def test_silence_is_failure() -> None:
    """Before the first push, and from the ttl on after the last one."""
    clock = Clock()
    check = PushCheck(30, clock)
    assert (await check.probe()).outcome is Outcome.FAILED
    check.receive(Outcome.PASSED, "all well")
    clock.now += 30
    assert ((await check.probe()).outcome, (await check.probe()).detail) == (Outcome.PASSED, "all well")
    clock.now += 0.1
    result = await check.probe()
    assert (result.outcome, result.detail) == (Outcome.FAILED, "the app has pushed nothing for 30s")


async def test_the_newest_state_counts() -> None:
    """Each push replaces the one before; words are optional."""
    check = PushCheck(30)
    check.receive(Outcome.PASSED, "")
    check.receive(Outcome.DEGRADED, "")
    result = await check.probe()
    assert (result.outcome, result.detail) == (Outcome.DEGRADED, "the app pushed degraded")


async def test_the_inbox_hands_states_on_by_service_and_name() -> None:
    """Endpoints of one service hear the same; other services and names hear nothing."""
    inbox = Inbox()
    here = [PushOptions().check(CheckTarget("127.0.0.1", port, "shop", inbox)) for port in (1, 2)]
    other = PushOptions(name="jobs").check(CheckTarget("127.0.0.1", 1, "shop", inbox))
    assert inbox.receive("shop", Outcome.PASSED, "") == 2
    assert [(await check.probe()).outcome for check in (*here, other)] == [
        Outcome.PASSED, Outcome.PASSED, Outcome.FAILED,
    ]  # fmt: skip
    assert inbox.receive("shop", Outcome.PASSED, "", "jobs") == 1
    assert inbox.receive("admin", Outcome.PASSED, "") == 0
    inbox.unregister(here[0])
    assert inbox.receive("shop", Outcome.FAILED, "") == 1


@pytest.mark.parametrize("state", [Outcome.UNKNOWN, Outcome.MAINTENANCE])
def test_an_app_cannot_push_what_only_we_can_say(state: Outcome) -> None:
    """The words for checks of ours are refused."""
    with pytest.raises(ValueError, match="expected one of passed, degraded, failed"):
        Inbox().receive("shop", state, "")


async def test_a_configured_check_hears_what_is_pushed() -> None:
    """From the options to a result."""
    inbox = Inbox()
    target = CheckTarget("127.0.0.1", 1, "shop", inbox)
    result = await probe(PushOptions(), target=target)
    assert result.detail == "the app has not pushed anything yet"


def test_a_ttl_shorter_than_the_interval_is_refused() -> None:
    """It would be over before it is looked at."""
    with pytest.raises(ValueError, match="ttl 1s must not be shorter than interval 2s"):
        PushOptions(ttl=Duration(1))
    with pytest.raises(ValueError, match="name"):
        convert({"type": "push", "name": "a/b"}, PushOptions)
