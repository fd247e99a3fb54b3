"""The errors that the registrar raises and handles.

::

    RegistrarError
    ├── ConfigurationError      invalid settings; exit status 2
    │   ├── AddressError        no address that may be advertised
    │   └── IdentityError       no source names the instance
    ├── AppNotStarted           the command of ``exec`` cannot be run; exit status 126 or 127
    ├── AdminUnavailable        no running registrar answered
    ├── AdminRefused            a running registrar refused a request
    ├── MetadataUnavailable     a metadata service gave no usable response
    ├── AwsIdentityUnavailable  the AWS role of this process cannot be proven
    ├── EnvoyAdminError         the admin interface of the Envoy beside this process gave no usable response
    └── RegistryRequestError    a request to the registry failed
        ├── RegistryUnavailable     no usable response; retry soon
        ├── RegistryRefused         a refusal; a retry would be refused too
        └── RegistryAnswerTooLong   an answer that is not taken; the next one would be as long
"""

from collections.abc import Sequence

from wire.problem import Problem


class RegistrarError(Exception):
    """The base class of all errors that the registrar expects."""


class ConfigurationError(RegistrarError):
    """The settings are invalid.

    Attributes:
        faults: every error in them, each with its variable, file or key, so that one run shows all of them.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class AddressError(ConfigurationError):
    """No address was found, or the address cannot be reached from other machines.

    Attributes:
        fault: what is wrong.
        fix: what to do about it.
    """

    def __init__(self, fault: str, fix: str = "") -> None:
        super().__init__([f"{fault}; {fix}" if fix else fault])
        self.fault = fault
        self.fix = fix


class IdentityError(ConfigurationError):
    """No source names the instance, and a guess could be the name of another instance.

    Attributes:
        fault: what is wrong.
        fix: what to do about it.
    """

    def __init__(self, fault: str, fix: str) -> None:
        super().__init__([f"{fault}; {fix}"])
        self.fault = fault
        self.fix = fix


class MetadataUnavailable(RegistrarError):  # noqa: N818 - a state of the endpoint, not a fault of the call
    """A metadata service gave no usable response.

    Attributes:
        fix: what to do about it; empty if that is unknown.
        passing: whether a later attempt may succeed.
    """

    def __init__(self, reason: str, fix: str = "", *, passing: bool = False) -> None:
        super().__init__(reason)
        self.fix = fix
        self.passing = passing


class AwsIdentityUnavailable(RegistrarError):  # noqa: N818 - a state of the machine, not a fault of the call
    """The AWS role of this process cannot be proven; the message never has a key.

    Attributes:
        fix: what to do about it.
    """

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.fix = fix


class EnvoyAdminError(RegistrarError):
    """The admin interface of the Envoy beside this process gave no usable response.

    Attributes:
        reason: what went wrong.
        status: the status of a refusal; None if there was no response, or an unusable one.
    """

    def __init__(self, address: str, path: str, reason: str, status: int | None = None) -> None:
        super().__init__(f"Envoy's admin interface at {address}, {path}: {reason}")
        self.reason = reason
        self.status = status


class AppNotStarted(RegistrarError):  # noqa: N818 - what happened, in two words
    """The command of ``exec`` cannot be run.

    Attributes:
        status: the exit status that a shell would use: 127 if the command is not found, otherwise 126.
    """

    def __init__(self, command: str, error: OSError) -> None:
        super().__init__(f"{command}: {error.strerror}")
        self.status = 127 if isinstance(error, FileNotFoundError) else 126


class AdminUnavailable(RegistrarError):  # noqa: N818 - a state of the other process
    """No registrar answered at the address of the admin interface."""


class AdminRefused(RegistrarError):  # noqa: N818 - what happened, in two words
    """A running registrar refused a request, or failed to carry it out; the message has its reason."""


class RegistryRequestError(RegistrarError):
    """A request to the registry failed.

    Attributes:
        perhaps_stored: whether the registry may have stored the request although its response is missing.
    """

    perhaps_stored = False


class RegistryUnavailable(RegistryRequestError):  # noqa: N818 - a state of the registry, not a fault of the call
    """The registry is unreachable or overloaded.

    Attributes:
        retry_after: seconds of the response's Retry-After header, or None.
        unauthenticated: whether a registry answered, and refused a token that is being replaced.
        limited: whether it was answered 429: a limit was reached, and nothing of the request was taken.
    """

    def __init__(
        self,
        reason: str,
        *,
        retry_after: float | None = None,
        perhaps_stored: bool = True,
        unauthenticated: bool = False,
        limited: bool = False,
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.limited = limited
        self.unauthenticated = unauthenticated
        self.perhaps_stored = perhaps_stored


class RegistryAnswerTooLong(RegistryRequestError):  # noqa: N818 - as above
    """The registry's answer is longer than this process takes."""


class RegistryRefused(RegistryRequestError):  # noqa: N818 - as above
    """The registry refused a request that it understood.

    Attributes:
        problem: the problem document of the refusal.
        from_registry: whether a registry sent it, and not a proxy in front of it.
        registry_time: seconds since the epoch by the sender's clock; None if it did not say.
    """

    def __init__(self, problem: Problem, *, from_registry: bool, registry_time: float | None = None) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")
        self.problem = problem
        self.from_registry = from_registry
        self.registry_time = registry_time

    @property
    def about_content(self) -> bool:
        """Whether it is about the content of the request, so that other endpoints may still be accepted."""
        return self.from_registry and self.problem.status in (400, 413, 422)
