"""How messages quote a text of a file, or of a request."""


def clipped(text: str) -> str:
    """Return a text of a file in quotes, on one line, and not longer than people read."""
    return repr(shortened(text))


def bare(text: str) -> str:
    """Return a text of a file as messages show it without quotes, where it can be shown so."""
    return shortened(text) if text.isprintable() else clipped(text)


def shortened(text: str) -> str:
    """Return a text with at most 60 characters."""
    return text if len(text) <= 60 else f"{text[:57]}..."
