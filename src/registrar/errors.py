"""What can go wrong, in the registrar's own words.

::

    RegistrarError
    ├── ConfigurationError      the settings cannot be used; exit status 2
    │   └── AddressError        no address that may be advertised
    └── RegistryError           one request to the registry failed
        ├── RegistryUnavailable worth another attempt soon
        └── RegistryRefused     the same request would be refused again
"""

from collections.abc import Sequence

from wire.problem import Problem


class RegistrarError(Exception):
    """Any failure that the registrar foresees."""


class ConfigurationError(RegistrarError):
    """The settings cannot be used.

    Attributes:
        faults: every fault that was found, each with its place, so that one run shows them all.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class AddressError(ConfigurationError):
    """No address was found, or one that no other machine could reach."""

    def __init__(self, fault: str) -> None:
        super().__init__([fault])


class RegistryError(RegistrarError):
    """One request to the registry failed.

    Attributes:
        perhaps_stored: whether it may have been stored all the same, without an answer that says so.
    """

    perhaps_stored = False


class RegistryUnavailable(RegistryError):  # noqa: N818 - a state of the registry, not a fault of the call
    """The registry is away or overloaded.

    Attributes:
        retry_after: seconds that the registry asked to wait, or None.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, perhaps_stored: bool = True) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.perhaps_stored = perhaps_stored


class RegistryRefused(RegistryError):  # noqa: N818 - as above
    """The registry understood the request and will not have it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")
        self.problem = problem
