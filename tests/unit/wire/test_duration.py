"""Durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.duration import ago, format_duration, parse_duration

TEN_YEARS = 10 * 365 * 86_400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0),
        ("500ms", 0.5),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        ("2d", 172_800.0),
        ("12", 12.0),
        ("0.25", 0.25),
        ("0s", 0.0),
        (" 5S ", 5.0),
        ("1h30m15s250ms", 5415.25),
    ],
)
def test_texts_that_people_write(text: str, seconds: float) -> None:
    """Units join without spaces, a bare number counts as seconds, and case does not matter."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", " ", "s", "-5s", "+5s", "5 s", "5s!", "five", "5w", "1e3s", ".5s", "5.s", "inf", "nan", "5s\n3s", "٣s", "²"],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """The error repeats the text and shows how to write it."""
    with pytest.raises(ValueError, match="is not a duration; write it like 5s, 500ms or 1m30s"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["3651d", "9" * 400, f"{TEN_YEARS}.001"])
def test_durations_end_at_ten_years(text: str) -> None:
    """A number that nobody can mean is refused before it reaches a timer."""
    with pytest.raises(ValueError, match="longer than ten years"):
        parse_duration(text)


@given(st.integers(0, TEN_YEARS * 1000))
def test_what_is_formatted_is_read_back_to_the_millisecond(milliseconds: int) -> None:
    """Every duration survives the way through its text."""
    text = format_duration(milliseconds / 1000)
    assert round(parse_duration(text) * 1000) == milliseconds


@given(st.floats(0, TEN_YEARS))
def test_formatting_rounds_to_the_millisecond(seconds: float) -> None:
    """What is finer than a millisecond is lost, and nothing else."""
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.000_51)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (90, "1m30s"), (90.5, "90.5s"), (86_400, "1d"), (1234.567, "1234.567s")],
)
def test_formatted_texts_are_short(seconds: float, text: str) -> None:
    """Whole seconds are split into units, others are not."""
    assert format_duration(seconds) == text


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but a ValueError comes out of a bad text, and nothing negative or endless out of a good one."""
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds <= TEN_YEARS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (-3, "0s"), (0.4, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")],
)
def test_a_length_of_time_is_in_its_greatest_unit(seconds: float | None, text: str) -> None:
    """Two of a unit at least, so that nothing is rounded to half of what it is."""
    assert ago(seconds) == text
