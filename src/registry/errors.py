"""What can go wrong, in one tree; the API maps it to HTTP in one place.

RegistryError
├── BadSettingsError      the environment says something impossible
├── InvalidError          the request says something impossible           422
│   └── InadmissibleError  the limits of this registry do not allow it    422
├── LimitError            there is too much of something already          429
├── UnreadableError       the request cannot be parsed                    400
├── ForeignError          a page of another site sent it                  403
├── MisdirectedError      a browser asks under a name that is not ours    421
├── NotAllowedError       the principal may not do this                   403
├── NotFoundError         there is no such thing                          404
│   ├── UnknownServiceError   the service is not known
│   └── UnknownEndpointError  the endpoint is not registered
├── FencedError           another instance or incarnation owns it         409
├── GuardedError          too many endpoints would leave at once          409
├── TooLargeError         the body is beyond the limit                    413
├── ClockSteppedError     PostgreSQL's clock was set in the middle of a sweep
└── UnavailableError      nothing can be stored, or nothing is known yet  503
    ├── RefusedError      PostgreSQL answers, and refuses                 503
    └── UnsuitableError   no registry can run on this database            503
"""


class RegistryError(Exception):
    """Root of what this package raises on purpose; its text is for people."""


class BadSettingsError(RegistryError):
    """The environment says something impossible."""


class InvalidError(RegistryError):
    """The request was understood and says something impossible.

    Args:
        message: what is wrong and how to mend it.
        pointer: where in the request, as a path like ``$.weight``.
    """

    def __init__(self, message: str, pointer: str | None = None) -> None:
        super().__init__(message)
        self.pointer = pointer


class InadmissibleError(InvalidError):
    """The request says something that the limits of this registry do not allow.

    Args:
        message: what was received, what is allowed and how to mend it.
        pointer: where in the request.
        limit: which limit, as the metric has it.
    """

    def __init__(self, message: str, pointer: str, limit: str) -> None:
        super().__init__(message, pointer)
        self.limit = limit


class LimitError(RegistryError):
    """There is as much of something as this registry may have; the same request may work later.

    Args:
        message: how much there is, what is allowed and how to mend it.
        limit: which limit, as the metric has it.
    """

    retry_after = 30.0

    def __init__(self, message: str, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


class UnreadableError(RegistryError):
    """The request could not be parsed at all."""


class ForeignError(RegistryError):
    """A page of another site made a browser send the write."""


class MisdirectedError(RegistryError):
    """A browser asks under a host name that is not one of the registry's."""


class NotAllowedError(RegistryError):
    """The principal may not do this; the text names the verb, the service and the principal."""


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
    """Another instance, or a newer incarnation of the same one, owns the endpoint.

    Args:
        message: who and why.
        owner: the instance that owns the endpoint now.
        incarnation: the newest incarnation known for the endpoint.
    """

    def __init__(self, message: str, owner: str, incarnation: int) -> None:
        super().__init__(message)
        self.owner = owner
        self.incarnation = incarnation


class GuardedError(RegistryError):
    """More endpoints of a service would leave at once than the guard allows; an operator may insist."""

    pointer = "query:force"


class TooLargeError(RegistryError):
    """The request's body is beyond the limit."""


class ClockSteppedError(RegistryError):
    """PostgreSQL's clock was set while a sweep judged by it; the sweep is given up, and no client hears of it.

    Args:
        seconds: by how much; negative: backwards.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"PostgreSQL's clock was set by {seconds:+.1f} s in the middle of a sweep")
        self.seconds = seconds


class UnavailableError(RegistryError):
    """Nothing can be stored, or nothing is known yet; the same request may work later.

    Args:
        message: what is away, for whoever asked.
        retry_after: seconds after which to try again.
        cause: what was found, for the log; it may name hosts and users.
    """

    def __init__(self, message: str, retry_after: float = 1.0, *, cause: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.cause = cause or message


class RefusedError(UnavailableError):
    """PostgreSQL answered and refused: no outage, and nothing that waiting mends. Nothing was stored.

    Args:
        message: what it refused, for whoever asked.
        cause: what was found and what to do about it, for the log.
        lone: it is about the very rows at hand, and others may be stored.
        stale: a fresh connection may mend it.
    """

    def __init__(self, message: str, *, cause: str, row_specific: bool = False, stale: bool = False) -> None:
        super().__init__(message, cause=cause)
        self.row_specific = row_specific
        self.stale = stale


class UnsuitableError(UnavailableError):
    """No registry can run on the database of its URL; found at the start, it ends the start."""
