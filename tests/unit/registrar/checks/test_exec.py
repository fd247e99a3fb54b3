"""Options and details of the exec check, without a process."""

import pytest

from registrar.checks.exec import ExecOptions
from registrar.checks.result import Outcome, Result
from registrar.config.conversion import convert
from registrar.environment import missing_variables


def test_many_names_leave_room_for_the_output() -> None:
    """A detail has 1,024 characters; an environment may have hundreds of names, each as long as it likes."""
    environ = {f"{'V' * 300}{number}": "" for number in range(400)}
    note = missing_variables(environ, [f"W{number}" for number in range(400)])
    assert " more (" in note
    assert len(note) < 850
    detail = Result(Outcome.FAILED, "said " * 300).with_note(note).detail
    assert (len(detail), detail.endswith(note)) == (1024, True)


@pytest.mark.parametrize("name", ["REGISTRAR_TOKEN", "NOTIFY_SOCKET", "WATCHDOG_USEC", "A=B", ""])
def test_variables_that_no_check_may_have(name: str) -> None:
    """Listing one of the registrar's own is a fault of the configuration, and not ignored."""
    with pytest.raises(ValueError, match="env"):
        convert({"type": "exec", "command": ["true"], "env": [name]}, ExecOptions)


@pytest.mark.parametrize("words", ["[]", [], [""], ["a\0b"], "true"])
def test_commands_that_are_none(words: object) -> None:
    """A list of words with a program at its head, and no line for a shell."""
    with pytest.raises(ValueError, match=r"\w"):
        convert({"type": "exec", "command": words}, ExecOptions)
