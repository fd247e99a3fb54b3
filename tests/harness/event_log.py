"""Reading what a program logged, by the names of its events."""

from pathlib import Path

_SOURCES = Path(__file__).parents[2] / "src"


def was_logged(event: str, log: Path) -> bool:
    """Return whether a program logged an event.

    Raises:
        AssertionError: no program logs an event of this name, so that its absence would say nothing.
    """
    assert any(f'"{event}"' in source.read_text() for source in _SOURCES.rglob("*.py")), f"nothing logs {event}"
    return f'"{event}"' in log.read_text()
