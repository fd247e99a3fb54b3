"""``registrar status``: what the running registrar knows."""

import argparse
import sys
from collections.abc import Iterator, Sequence

import msgspec

from registrar.admin.client import AdminClient
from registrar.admin.status import EndpointStatus, RegistrarStatus
from registrar.commands.admin_address import add_admin_options, addressed_path, admin_address_of

_PATIENCE = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the place to ask, and the form of the answer."""
    add_admin_options(parser)
    parser.add_argument("--json", action="store_true", help="Print the whole document as JSON.")


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Print the status; return 0 when every endpoint is registered and in rotation, else 1.

    Raises:
        AdminRefused: another registrar answers.
        AdminUnavailable: no registrar answers.
        ConfigurationError: the place cannot be used.
    """
    _code, said = AdminClient(admin_address_of(arguments), _PATIENCE).request(
        "GET", addressed_path(arguments, "/status")
    )
    status = msgspec.json.decode(said, type=RegistrarStatus)
    text = msgspec.json.format(said, indent=2).decode() if arguments.json else "\n".join(_lines(status))
    sys.stdout.write(f"{text}\n")
    return 0 if status.ready else 1


def _lines(status: RegistrarStatus) -> Iterator[str]:
    registry = status.registry
    since = registry.seconds_since_acknowledged
    heard = "never acknowledged" if since is None else f"acknowledged {since:.1f}s ago"
    yield f"instance  {status.instance_id}, up {status.seconds_up:.0f}s, {status.drain}"
    yield f"registry  {registry.url}, {heard}, {registry.sent} sent, {registry.failed} failed"
    if registry.away:
        yield f"          away: {registry.away}"
    if status.reloads.fault:
        yield f"reload    rejected: {status.reloads.fault}"
    for endpoint in status.endpoints:
        yield from _endpoint(endpoint)


def _endpoint(endpoint: EndpointStatus) -> Iterator[str]:
    published = "fenced" if endpoint.fenced else f"published as {endpoint.published or 'nothing'}"
    yield f"endpoint  {endpoint.service} {endpoint.endpoint}: {endpoint.state}, {published}"
    if endpoint.problem:
        yield f"          refused: {endpoint.problem}"
    for check in endpoint.checks:
        ago = "" if check.seconds_ago is None else f", {check.seconds_ago:.1f}s ago"
        yield f"  check   {check.type}: {check.outcome}{ago}: {check.detail}".rstrip(": ")
