"""What can go wrong, in the registrar's own words.

::

    RegistrarError
    ├── ConfigurationError      the settings cannot be used; exit status 2
    │   ├── AddressError        no address that may be advertised
    │   └── IdentityError       nobody says which instance this is
    ├── AppNotStarted           the command of ``exec`` cannot be run; exit status 126 or 127
    ├── AdminUnavailable        no running registrar answered
    ├── AdminRefused            a running registrar would not do what it was asked for
    ├── MetadataUnavailable     the task or the machine says nothing about itself
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
    """No address was found, or one that no other machine could reach.

    Attributes:
        fault: what is wrong.
        fix: how to mend it.
    """

    def __init__(self, fault: str, fix: str = "") -> None:
        super().__init__([f"{fault}; {fix}" if fix else fault])
        self.fault = fault
        self.fix = fix


class IdentityError(ConfigurationError):
    """Nobody says which instance this is, and a guess would be another one's name.

    Attributes:
        fault: what is wrong.
        fix: how to mend it.
    """

    def __init__(self, fault: str, fix: str) -> None:
        super().__init__([f"{fault}; {fix}"])
        self.fault = fault
        self.fix = fix


class MetadataUnavailable(RegistrarError):  # noqa: N818 - a state of the endpoint, not a fault of the call
    """What should know the task or the machine gave no answer that can be used.

    Attributes:
        fix: how to mend it, where that is known.
        passing: whether the same question may be answered later.
    """

    def __init__(self, reason: str, fix: str = "", *, passing: bool = False) -> None:
        super().__init__(reason)
        self.fix = fix
        self.passing = passing


class AppNotStarted(RegistrarError):  # noqa: N818 - what happened, in two words
    """The command of ``exec`` cannot be run.

    Attributes:
        status: what a shell exits with then.
    """

    def __init__(self, command: str, error: OSError) -> None:
        super().__init__(f"{command}: {error.strerror}")
        self.status = 127 if isinstance(error, FileNotFoundError) else 126


class AdminUnavailable(RegistrarError):  # noqa: N818 - a state of the process that was asked
    """No running registrar answered where its admin interface should be."""


class AdminRefused(RegistrarError):  # noqa: N818 - what happened, in two words
    """A running registrar would not, or could not, do what it was asked for, and said why."""


class RegistryRequestError(RegistrarError):
    """One request to the registry failed.

    Attributes:
        perhaps_stored: whether it may have been stored all the same, without an answer that says so.
    """

    perhaps_stored = False


class RegistryUnavailable(RegistryRequestError):  # noqa: N818 - a state of the registry, not a fault of the call
    """The registry is away or overloaded.

    Attributes:
        retry_after: seconds that the registry asked to wait, or None.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, perhaps_stored: bool = True) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.perhaps_stored = perhaps_stored


class RegistryRefused(RegistryRequestError):  # noqa: N818 - as above
    """The registry understood the request and will not have it.

    Attributes:
        problem: why.
        from_registry: whether the registry said so, and not a proxy that does not know it.
    """

    def __init__(self, problem: Problem, *, from_registry: bool) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")
        self.problem = problem
        self.from_registry = from_registry

    @property
    def about_content(self) -> bool:
        """Whether it is about what one endpoint said, and so no fault of the registry or of another endpoint."""
        return self.from_registry and self.problem.status in (400, 413, 422)
