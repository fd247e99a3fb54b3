"""What a history must not contain."""


class Violation(AssertionError):  # noqa: N818  # a fact about a history, not an error of it
    """An invariant does not hold; the text names it first, as in ``I1: …``."""
