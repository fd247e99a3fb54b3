"""The errors of the registry in one tree, which ``registry.http.problems`` maps to HTTP.

RegistryError
├── BadSettingsError      a setting is not valid
├── InvalidError          a value of the request is not valid             422
│   ├── InadmissibleError  the limits of this registry do not allow it    422
│   └── FaultsError        the definitions of a mesh have faults          422
├── LimitError            a limit of the registry is reached              429
├── UnreadableError       the request cannot be parsed                    400
├── ForeignError          a page of another site sent the request         403
├── MisdirectedError      a browser uses a host name that is not allowed  421
├── UnauthenticatedError  no credential was sent, or it is not accepted   401
├── NotAllowedError       the policy does not allow it                    403
├── NotFoundError         it does not exist                               404
│   ├── UnknownServiceError   the service is not known
│   └── UnknownEndpointError  the endpoint is not registered
├── RevisionConflictError  another revision of the mesh came between      409
├── ShiftConflictError    the shift of the service does not allow it now  409
├── FencedError           another instance or incarnation owns it         409
├── NotOwnerError         another identity owns it                        409
├── GuardedError          too many endpoints would leave at once          409
├── NotRememberedError    it builds on a request that is not known        412
├── TooLargeError         the body exceeds the limit                      413
├── ClocksDifferError     PostgreSQL's clock is not that of this process
├── ClockSteppedError     PostgreSQL's clock was set in the middle of a sweep
└── UnavailableError      PostgreSQL does not answer, or no data yet      503
    ├── RefusedError      PostgreSQL answers and refuses                  503
    └── UnsuitableError   the database cannot be used by a registry       503
"""

from collections.abc import Sequence

from meshconfig.position import Fault, Severity


class RegistryError(Exception):
    """The root of the errors that this package raises; their text is for people."""


class BadSettingsError(RegistryError):
    """A setting is not valid; the text names each variable and what it may be."""


class InvalidError(RegistryError):
    """A value of the request is not valid.

    Args:
        message: the value that was received, what is allowed, and what to do.
        pointer: the place in the request, as a path like ``$.weight``.
    """

    def __init__(self, message: str, pointer: str | None = None) -> None:
        super().__init__(message)
        self.pointer = pointer


class InadmissibleError(InvalidError):
    """The registry's limits do not allow a value of the request.

    Args:
        message: the value that was received, what is allowed, and what to do.
        pointer: the place in the request, as a path like ``$.weight``.
        limit: the name of the limit, as the metric has it.
    """

    def __init__(self, message: str, pointer: str, limit: str) -> None:
        super().__init__(message, pointer)
        self.limit = limit


class FaultsError(InvalidError):
    """The definitions of a mesh have faults, and nothing of them was stored.

    Args:
        faults: all of them, with their places.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        errors = [fault for fault in faults if fault.severity is Severity.ERROR]
        more = f" There are {len(errors) - 1} more." if len(errors) > 1 else ""
        super().__init__(f"{errors[0] if errors else 'the definitions have faults'}{more}", "$.files")
        self.faults = faults


class RevisionConflictError(RegistryError):
    """Another revision of the mesh configuration is in force than the one that the sender knows.

    Args:
        base: the revision that the sender knows.
        newest: the revision that is in force.
    """

    def __init__(self, base: int, newest: int) -> None:
        super().__init__(
            f"revision {newest} is in force, and the request is based on {base}: somebody applied in between. Look at "
            f"what changed (registryctl mesh diff {base} {newest}), merge it, plan again and apply"
        )


class ShiftConflictError(RegistryError):
    """The service has a shift whose state does not allow the order; the text says which order it allows."""


class LimitError(RegistryError):
    """A limit of the registry is reached; the same request may succeed later.

    Args:
        message: how much there is, what is allowed, and what to do.
        limit: the name of the limit, as the metric has it.
        retry_after: seconds after which clients may send the request again.
    """

    def __init__(self, message: str, limit: str, retry_after: float = 30.0) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after = retry_after


class UnreadableError(RegistryError):
    """The request cannot be parsed."""


class ForeignError(RegistryError):
    """A page of another site made a browser send a write (cross-site request forgery)."""


class MisdirectedError(RegistryError):
    """A browser uses a host name that is not one of the registry's (DNS rebinding)."""


class NotAllowedError(RegistryError):
    """The policy does not allow it; the text names the verb, the service and the principal."""


class UnauthenticatedError(RegistryError):
    """The request needs a credential, and none was sent or accepted; the text says why."""


class NotOwnerError(RegistryError):
    """The endpoint was registered by another identity, whose lease is alive."""


class NotFoundError(RegistryError):
    """There is no such service, endpoint, override or pause."""


class UnknownServiceError(NotFoundError):
    """The service never had an endpoint, or was forgotten after its last one."""

    def __init__(self, service: str) -> None:
        super().__init__(f"service {service} never had an endpoint, or is forgotten")


class UnknownEndpointError(NotFoundError):
    """The endpoint is not registered for the service.

    Args:
        service: the service's name.
        endpoint: the endpoint, as ``address:port``.
    """

    def __init__(self, service: str, endpoint: str) -> None:
        super().__init__(f"{endpoint} is not registered for {service}")


class FencedError(RegistryError):
    """Another instance, or a newer incarnation of the same instance, owns the endpoint.

    Args:
        message: the owner, and the reason.
        owner: the instance that owns the endpoint now.
        incarnation: the newest incarnation that is stored for the endpoint.
    """

    def __init__(self, message: str, owner: str, incarnation: int) -> None:
        super().__init__(message)
        self.owner = owner
        self.incarnation = incarnation


class GuardedError(RegistryError):
    """More endpoints of a service would leave at once than the guard allows, unless the operator forces it."""

    pointer = "query:force"


class NotRememberedError(RegistryError):
    """The request builds on another one, which this process does not know; a whole one may succeed."""


class TooLargeError(RegistryError):
    """The request's body exceeds the limit."""


class ClockSteppedError(RegistryError):
    """PostgreSQL's clock was set during a sweep, which is given up; no client gets this error.

    Args:
        seconds: the step of the clock; negative: backwards.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"PostgreSQL's clock was set by {seconds:+.1f} s in the middle of a sweep")
        self.seconds = seconds


class ClocksDifferError(RegistryError):
    """PostgreSQL's clock and that of this process differ, and nothing is deleted by either; no client gets this error.

    Args:
        seconds: by which PostgreSQL's is ahead; negative: behind.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"PostgreSQL's clock is {seconds:+.0f} s from that of this process. Nothing that ended is deleted until "
            "they agree, since one of them may be far ahead; set the wrong one"
        )
        self.seconds = seconds


class UnavailableError(RegistryError):
    """PostgreSQL does not answer, or this process has no data yet; the same request may succeed later.

    Args:
        message: what is not available, for the client.
        retry_after: seconds after which to try again.
        cause: the cause, for the log; it may name hosts and users.
    """

    def __init__(self, message: str, retry_after: float = 1.0, *, cause: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.cause = cause or message


class RefusedError(UnavailableError):
    """PostgreSQL answered and refused; this is no outage, and nothing was stored.

    Args:
        message: what it refused, for the client.
        cause: the cause and what to do about it, for the log.
        row_specific: PostgreSQL refused these rows, and may accept others.
        stale: the same statement may work on a new connection.
    """

    def __init__(self, message: str, *, cause: str, row_specific: bool = False, stale: bool = False) -> None:
        super().__init__(message, cause=cause)
        self.row_specific = row_specific
        self.stale = stale


class UnsuitableError(UnavailableError):
    """The database cannot be used by a registry; raised at the start, which it ends."""
