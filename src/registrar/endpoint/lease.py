"""The lease of one endpoint as this process knows it: pure rules, no I/O."""

import enum
import math

from wire.model import Grant, Registration
from wire.problem import Problem


class RefusalEffect(enum.Enum):
    """The effect of a refused heartbeat on the endpoint."""

    RAISED = "retry at once with a larger incarnation"
    REFUSED = "go on sending heartbeats; they may be accepted later"
    FENCED = "another instance or a newer start owns the endpoint; this process sends no more heartbeats for it"


class LeaseState:
    """The state of the lease of one endpoint, from the responses to its heartbeats.

    Attributes:
        incarnation: the incarnation of the next heartbeat.
        accepted: whether a heartbeat of this process was stored.
        perhaps_stored: whether a heartbeat may have been stored although its response was lost.
        fenced: whether another owner took the endpoint; this process never sends a heartbeat for it again.
        grant: the newest grant, or None.
        ends: monotonic seconds at which the lease expires, by the newest grant.
        problem: the refusal since the newest grant, or None.
        drained_at: monotonic seconds of the response that acknowledged the drain, or None.
    """

    def __init__(self, instance_id: str, incarnation: int) -> None:
        self.incarnation = incarnation
        self.accepted = False
        self.perhaps_stored = False
        self.fenced = False
        self.grant: Grant | None = None
        self.ends = -math.inf
        self.problem: Problem | None = None
        self.drained_at: float | None = None
        self._instance_id = instance_id
        # Whether the incarnation was raised above the registry's; done once at most.
        self._raised = False

    @property
    def owned_by_another(self) -> bool:
        """Whether another owner has the endpoint, so that this process must not deregister it."""
        return self.fenced or (self.problem is not None and self.problem.status == 409)

    @property
    def may_be_registered(self) -> bool:
        """Whether the registry may list a registration of this process, which has to be deregistered."""
        return self.accepted or self.perhaps_stored

    def successor(self) -> "LeaseState":
        """Return the lease of the next incarnation of the same instance."""
        lease = LeaseState(self._instance_id, self.incarnation + 1)
        # The registry still lists the old incarnation, which has to be drained and deregistered.
        lease.perhaps_stored = self.may_be_registered
        # The interval and the drain wait of the old grant hold until the first grant of the new incarnation.
        lease.grant, lease.ends = self.grant, self.ends
        return lease

    def granted(self, registration: Registration, grant: Grant, now: float) -> None:
        """Record the grant of a stored heartbeat."""
        self.accepted = True
        self.problem = None
        self.grant, self.ends = grant, now + grant.ttl
        if registration.draining and self.drained_at is None:
            self.drained_at = now

    def refused(self, problem: Problem) -> RefusalEffect:
        """Record a refusal and return its effect.

        A 409 for an endpoint that this process had been granted means that a newer start or another owner took it. This
        process gives up for good; otherwise the two would take the endpoint from each other in turns. A process that
        was never accepted may have started while the clock was set back, so it may once exceed the incarnation of its
        own instance that the registry has. The address of another instance is requested again: that instance may be
        dead and its lease about to expire.
        """
        self.problem = problem
        if problem.status != 409:
            return RefusalEffect.REFUSED
        own = problem.owner == self._instance_id
        if not self.accepted and own and problem.incarnation is not None and not self._raised:
            self._raised = True
            self.incarnation = problem.incarnation + 1
            return RefusalEffect.RAISED
        if not self.accepted and problem.owner is not None and not own:
            return RefusalEffect.REFUSED
        self.fenced = True
        return RefusalEffect.FENCED
