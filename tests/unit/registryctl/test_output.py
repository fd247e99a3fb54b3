"""Output to a terminal: no text of a stranger moves, hides or turns the text beside it."""

import io

import pytest

from registryctl.output import Screen


@pytest.mark.parametrize("letter", ["\x1b", "\n", "\x9b", "\u202e", "\u2066", "\u200f", "\u2028"])
def test_what_moves_or_turns_text_is_a_question_mark(letter: str) -> None:
    """In tables and lines, in whatever column it stands; the columns stay aligned."""
    out = io.StringIO()
    screen = Screen(out)
    screen.table(("name", "why"), [(f"a{letter}b", f"x{letter}y"), ("abc", "z")])
    screen.say(f"said{letter}")
    assert out.getvalue() == "NAME  WHY\na?b   x?y\nabc   z\nsaid?\n"
