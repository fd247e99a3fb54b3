"""What the registry said about one endpoint of this process: pure rules, no I/O."""

import enum
import math

from wire.model import Grant, Registration
from wire.problem import Problem


class RefusalEffect(enum.Enum):
    """What a refused heartbeat means for the endpoint."""

    RAISED = "try again at once with a larger incarnation"
    REFUSED = "go on as before; it may be accepted later"
    FENCED = "stop publishing for good"


class LeaseState:
    """The promise for one endpoint, as far as this process knows it.

    Attributes:
        incarnation: what the next heartbeat carries.
        accepted: a heartbeat of this process was stored.
        perhaps_stored: one may have been stored without its answer reaching us.
        fenced: somebody newer owns the endpoint; this process never heartbeats for it again.
        grant: the last answer.
        ends: monotonic seconds at which the promise is over, as far as we were told.
        problem: the refusal that has been in force since then, or None.
        drained_at: monotonic seconds of the answer that acknowledged the drain.
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
        self._raised = False

    @property
    def owned_by_another(self) -> bool:
        """Whether the endpoint is somebody else's, and so not ours to end."""
        return self.fenced or (self.problem is not None and self.problem.status == 409)

    @property
    def may_be_registered(self) -> bool:
        """Whether the registry may know this endpoint by us, so that there is something to give back."""
        return self.accepted or self.perhaps_stored

    def successor(self) -> "LeaseState":
        """Return the lease of the same instance's next incarnation."""
        lease = LeaseState(self._instance_id, self.incarnation + 1)
        # The registry still shows the old incarnation: there is something to drain and to deregister.
        lease.perhaps_stored = self.may_be_registered
        # It goes on to say how often it wants to hear from us.
        lease.grant, lease.ends = self.grant, self.ends
        return lease

    def granted(self, registration: Registration, grant: Grant, now: float) -> None:
        """Take in the answer to a stored heartbeat."""
        self.accepted = True
        self.problem = None
        self.grant, self.ends = grant, now + grant.ttl
        if registration.draining and self.drained_at is None:
            self.drained_at = now

    def refused(self, problem: Problem) -> RefusalEffect:
        """Take in a refusal.

        A 409 for an endpoint that this process had been granted means that a newer start or another owner
        took it: giving in, for good, is what keeps two of them from taking it from each other in turns. A
        process that never was accepted merely started behind a clock that was set back, and so may exceed
        the known incarnation of its own instance, once. An address that belongs to another instance is
        asked for again: its owner may be dead, and its lease about to expire.
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
