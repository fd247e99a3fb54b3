"""A resolver whose answers a test writes."""


class Names:
    """Resolves the names that a test gave it, and counts what it was asked.

    Attributes:
        known: the addresses of each name; a test changes them as DNS would.
        asked: the names that were looked up, in order.
    """

    def __init__(self, **known: list[str]) -> None:
        self.known = known
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        """Return the addresses of a name."""
        self.asked.append(host)
        if host not in self.known:
            raise OSError("no such name")
        return self.known[host]
