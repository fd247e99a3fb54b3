"""Rules on merged policies: a value that one layer writes against those that it inherits.

A fault stands where the layer that is looked at wrote one of the values, as the others may be right for everybody else.
A conflict between values that are all inherited has been found where they come from.
"""

from collections.abc import Callable, Iterator

from meshconfig.block import Block
from meshconfig.definition.policies import Policies, RoutePolicies
from meshconfig.definition.retry import Retry
from meshconfig.field_types import GRPC_CONDITIONS
from meshconfig.position import Fault, Severity
from wire.duration import format_duration

_STATUS_CONDITION = "retriable-status-codes"


def policy_faults(policies: RoutePolicies, own: Block, protocol: str) -> Iterator[Fault]:
    """Yield the faults of policies that a block wrote a part of.

    Args:
        policies: the merged ones.
        own: the block of the layer that is looked at.
        protocol: the protocol of the cluster.
    """
    for fields, rule in _RULES:
        if not fields.isdisjoint(own.values):
            yield from rule(policies, own, protocol)
    if isinstance(policies, Policies):
        for fields, cluster_rule in _CLUSTER_RULES:
            if not fields.isdisjoint(own.values):
                yield from cluster_rule(policies, own, protocol)


def _timeouts(policies: RoutePolicies, own: Block, _: str) -> Iterator[Fault]:
    retry = policies.retry
    at = own.place("retry.per_try_timeout")
    each_try = None if retry is None else retry.per_try_timeout
    if at is not None and each_try is not None and 0 < policies.timeout <= each_try:
        each, whole = format_duration(each_try), format_duration(policies.timeout)
        message = f"per_try_timeout is {each}, and the timeout of all tries together is {whole}."
        yield Fault(at, message, "Write a shorter one, or a longer timeout.")
    at = own.place("timeout")
    if at is not None and policies.timeout == 0:
        message = "timeout is 0s: a request to an endpoint that hangs never ends."
        yield Fault(at, message, "Write the longest time that a caller can wait.", Severity.WARNING)


def _retry(policies: RoutePolicies, own: Block, protocol: str) -> Iterator[Fault]:
    if policies.retry is not None:
        yield from _conditions(policies.retry, own)
        yield from _grpc_conditions(policies.retry, own, protocol)


def _conditions(retry: Retry, own: Block) -> Iterator[Fault]:
    if (at := own.place("retry.when")) is not None and not retry.when:
        yield Fault(at, "when is empty: nothing is retried.", "Write retry: null to switch retries off.")
    at = own.place("retry.statuses", "retry.when")
    if at is not None and _STATUS_CONDITION not in retry.when and own.place("retry.statuses") is not None:
        message = f"statuses are retried only where when has {_STATUS_CONDITION}."
        yield Fault(at, message, f"Add {_STATUS_CONDITION} to when, or remove statuses.")
    if at is not None and _STATUS_CONDITION in retry.when and not retry.statuses:
        message = f"when has {_STATUS_CONDITION}, and statuses is empty."
        yield Fault(at, message, "Write statuses: [502, 503, 504], or remove the condition.")
    at = own.place("retry.hedge", "retry.per_try_timeout")
    if at is not None and retry.hedge and retry.per_try_timeout is None:
        message = "hedge begins another try when per_try_timeout is over, and there is none."
        yield Fault(at, message, "Write per_try_timeout.")


def _grpc_conditions(retry: Retry, own: Block, protocol: str) -> Iterator[Fault]:
    unmet = [condition for condition in retry.when if condition in GRPC_CONDITIONS]
    at = own.place("retry.when", "protocol")
    if at is not None and unmet and protocol == "http1":
        message = f"{', '.join(unmet)} is an answer of gRPC, and the protocol is {protocol}."
        yield Fault(at, message, "Write protocol: grpc, or remove the condition.")


def _fault_injection(policies: RoutePolicies, own: Block, _: str) -> Iterator[Fault]:
    fault = policies.fault
    at = own.place("fault")
    if at is not None and fault is not None and fault.abort is None and fault.delay is None:
        yield Fault(at, "fault has neither abort nor delay: nothing happens.", "Write one of them, or fault: null.")


def _entrance(policies: RoutePolicies, own: Block, _: str) -> Iterator[Fault]:
    auth, limit = policies.auth, policies.rate_limit
    at = own.place("auth")
    if at is not None and auth is not None and auth.jwt is None and auth.external is None:
        yield Fault(at, "auth has neither jwt nor external: everybody passes.", "Write jwt or external, or auth: null.")
    at = own.place("rate_limit")
    if at is not None and limit is not None and (limit.by == "header") != (limit.header is not None):
        message = f"rate_limit is by {limit.by}, and header is {limit.header or 'not written'}."
        yield Fault(at, message, "Write by: header and the name of the header, or neither.")


def _upgrade(policies: RoutePolicies, own: Block, protocol: str) -> Iterator[Fault]:
    if not policies.upgrade:
        return
    at = own.place("upgrade", "protocol")
    if at is not None and protocol in {"http2", "grpc"}:
        message = f"A websocket begins in HTTP/1.1, and the protocol is {protocol}: few apps take one over HTTP/2."
        yield Fault(at, message, "Write protocol: http1, or upgrade: null.")
    at = own.place("upgrade", "shadow")
    if at is not None and policies.shadow is not None:
        message = "Websockets are not copied: a shadow would get their handshakes, and none of their messages."
        fix = "Write upgrade on a route of its own, with shadow: null."
        yield Fault(at, message, fix, Severity.WARNING)


def _slow_start(policies: Policies, own: Block, _: str) -> Iterator[Fault]:
    at = own.place("slow_start", "sticky")
    sticky = policies.sticky
    if at is not None and policies.slow_start is not None and sticky is not None and not sticky.strict:
        message = "slow_start does nothing with sticky, whose balancer chooses endpoints by hash."
        yield Fault(at, message, "Write slow_start: null, or sticky: null.")


def _limit(policies: Policies, own: Block, _: str) -> Iterator[Fault]:
    limit, retry = policies.limit, policies.retry
    at = own.place("limit", "retry.per_try_timeout")
    unlimited = limit.connections_per_endpoint is None and limit.connections is None and limit.requests is None
    if at is not None and unlimited and retry is not None and retry.per_try_timeout is not None:
        message = "Requests have a timeout of each try and no limit: in an overload, tries pile up and all are lost."
        fix = "Write limit.connections_per_endpoint below one endpoint's requests a second times per_try_timeout."
        yield Fault(at, message, fix, Severity.WARNING)


def _ejection(policies: Policies, own: Block, _: str) -> Iterator[Fault]:
    ejection = policies.outlier_detection
    if ejection is None:
        return
    at = own.place("outlier_detection.base", "outlier_detection.max")
    if at is not None and ejection.max < ejection.base:
        base, longest = format_duration(ejection.base), format_duration(ejection.max)
        yield Fault(at, f"An ejection begins with base {base}, and its max is {longest}.", "Write a max above base.")
    at = own.place("outlier_detection")
    if at is not None and ejection.consecutive_gateway_failure is None and ejection.consecutive_5xx is None:
        message = "outlier_detection has no counter: nothing is ejected."
        yield Fault(at, message, "Write consecutive_gateway_failure, or outlier_detection: null.")


def _health_check(policies: Policies, own: Block, protocol: str) -> Iterator[Fault]:
    check = policies.health_check
    if check is None:
        return
    at = own.place("health_check")
    kinds = [check.http is not None, check.grpc is not None, check.tcp]
    if at is not None and sum(kinds) != 1:
        yield Fault(at, "A health check has to have one of http, grpc and tcp.", "Write one of them.")
    at = own.place("health_check.grpc", "protocol")
    if at is not None and check.grpc is not None and protocol not in {"http2", "grpc"}:
        message = f"A health check by gRPC needs HTTP/2, and the protocol is {protocol}."
        yield Fault(at, message, "Write protocol: grpc or http2.")


def _sticky(policies: Policies, own: Block, _: str) -> Iterator[Fault]:
    sticky = policies.sticky
    at = own.place("sticky")
    if sticky is None or at is None:
        return
    if sticky.by == "source_ip":
        if sticky.strict:
            yield Fault(at, "sticky by source_ip cannot be strict.", "Write by: cookie, or by: header.")
        if sticky.name is not None:
            yield Fault(at, "sticky by source_ip has no name.", "Remove name.")
    elif not sticky.name:
        yield Fault(at, f"sticky by {sticky.by} needs its name.", f"Write name: the name of the {sticky.by}.")
    if sticky.ttl is not None and sticky.by != "cookie":
        yield Fault(at, f"ttl is of a cookie, and sticky is by {sticky.by}.", "Remove ttl.")


_RULES: tuple[tuple[frozenset[str], Callable[[RoutePolicies, Block, str], Iterator[Fault]]], ...] = (
    (frozenset({"retry", "timeout"}), _timeouts),
    (frozenset({"retry", "protocol"}), _retry),
    (frozenset({"fault"}), _fault_injection),
    (frozenset({"auth", "rate_limit"}), _entrance),
    (frozenset({"upgrade", "protocol", "shadow"}), _upgrade),
)
"""Rules on the policies of routes, with the fields of which a layer has to write one."""
_CLUSTER_RULES: tuple[tuple[frozenset[str], Callable[[Policies, Block, str], Iterator[Fault]]], ...] = (
    (frozenset({"outlier_detection"}), _ejection),
    (frozenset({"health_check", "protocol"}), _health_check),
    (frozenset({"sticky"}), _sticky),
    (frozenset({"slow_start", "sticky"}), _slow_start),
    (frozenset({"limit", "retry"}), _limit),
)
"""Rules on the policies of clusters, with the fields of which a layer has to write one."""
