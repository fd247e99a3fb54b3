"""The Envoys and gRPC clients that poll any process or have a stream there, and whether they keep up."""

from collections import Counter
from collections.abc import Collection

from msgspec import Struct
from msgspec.structs import replace

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.subscriber_sync import SubscriberSync
from registry.cooperative import cooperatively
from registry.core.subscriber_status import ClusterSubscribers, State, SubscriberFilter, SubscriberStatus


class SubscriberPage(Struct, frozen=True):
    """A part of the subscribers, by service, node id, address and API.

    Attributes:
        subscribers: the part.
        states: how many are in each state, on all pages and in any state.
        complete: whether a subscriber that is on no page does not poll.
        refused_ago: seconds since any process did not remember a subscriber, for want of room; None: not lately.
        more: whether more follow.
    """

    subscribers: list[SubscriberStatus]
    states: Counter[str]
    complete: bool
    refused_ago: float | None
    more: bool


class SubscriberListing:
    """Lists subscribers.

    Args:
        policy: decides who may read.
        sync: knows the subscribers of all processes.
    """

    def __init__(self, policy: Policy, sync: SubscriberSync) -> None:
        self._policy = policy
        self._sync = sync

    async def all(self, principal: Principal, wanted: SubscriberFilter) -> ClusterSubscribers:
        """Return the subscribers of all processes, as far as PostgreSQL tells those of the others soon.

        An Envoy is a subscriber of each service that it polls; those of services that may not be read are left out.
        """
        self._policy.allow(principal, Verb.READ, wanted.service or "")
        subscribers = await self._sync.list_subscribers(wanted)
        reach = self._policy.reach(principal, Verb.READ)
        if reach.everything or wanted.service is not None:
            return subscribers
        readable = [
            subscriber
            async for subscriber in cooperatively(subscribers.statuses)
            if reach.covers(subscriber.report.service)
        ]
        # How many of them could be read is not known, and need not be counted for somebody who may not read all.
        return replace(subscribers, statuses=readable, unlisted=0)

    async def page(
        self,
        principal: Principal,
        wanted: SubscriberFilter,
        states: Collection[State],
        *,
        after: tuple[str, ...],
        limit: int,
    ) -> SubscriberPage:
        """Return a part of the subscribers.

        Args:
            principal: the sender of the request.
            wanted: which subscribers.
            states: in one of these states; none stands for any.
            after: the identity of the subscriber behind which the page begins; empty: of the first one.
            limit: how many at most.
        """
        subscribers = await self.all(principal, wanted)
        counts: Counter[str] = Counter()
        fitting = []
        async for subscriber in cooperatively(subscribers.statuses):
            counts[subscriber.evaluation.state] += 1
            if (not states or subscriber.evaluation.state in states) and subscriber.report.identity > after:
                fitting.append(subscriber)
        counts["current"] += subscribers.unlisted
        return SubscriberPage(
            fitting[:limit], +counts, subscribers.complete, subscribers.refused_ago, len(fitting) > limit
        )
