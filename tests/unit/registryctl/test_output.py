"""Output to a terminal: no text of a stranger moves, hides or turns the text beside it."""

import io

import msgspec
import pytest

from registryctl.output import Screen

HARMFUL = ("\x1b", "\n", "\x9b", "\u202e", "\u2066", "\u200f", "\u2028")


@pytest.mark.parametrize("letter", HARMFUL)
def test_what_moves_or_turns_text_is_a_question_mark(letter: str) -> None:
    """In tables and lines, in whatever column it stands; the columns stay aligned."""
    out = io.StringIO()
    screen = Screen(out)
    screen.table(("name", "why"), [(f"a{letter}b", f"x{letter}y"), ("abc", "z")])
    screen.say(f"said{letter}")
    assert out.getvalue() == "NAME  WHY\na?b   x?y\nabc   z\nsaid?\n"


@pytest.mark.parametrize("letter", [letter for letter in HARMFUL if ord(letter) >= 32])
def test_json_for_scripts_has_them_escaped(letter: str) -> None:
    """A terminal that shows it is not moved, and a script reads the same text."""
    out = io.StringIO()
    screen = Screen(out)
    content = msgspec.json.encode({"detail": f"a{letter}b"})
    screen.document(msgspec.Raw(content))
    screen.line(msgspec.Raw(content))
    assert letter not in out.getvalue()
    document, line = out.getvalue().rsplit("{", 1)
    assert msgspec.json.decode(document) == msgspec.json.decode("{" + line) == {"detail": f"a{letter}b"}
