"""The verb about shifts of traffic to a group of a service's endpoints."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.commands.arguments import GivenReason
from registryctl.session import Session


@verb()
def shift(  # noqa: PLR0913  # the words of the command line
    session: Session,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[SERVICE]", help="The service; all shifts when not given.", show_default=False),
    ] = None,
    to: Annotated[
        str, typer.Option("--to", metavar="KEY=VALUE", help="Begin one: the group, like revision=abc or canary=true.")
    ] = "",
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps", metavar="PERCENT,...", help="Its shares, each greater than the one before (5,25,50,100)."
        ),
    ] = None,
    every: Annotated[
        str | None, typer.Option("--every", metavar="DURATION", help="How long each step takes (5m).")
    ] = None,
    abort_above: Annotated[
        str | None,
        typer.Option(
            "--abort-above",
            metavar="PERCENT",
            help="Take it back if it surely fails by so much more than the others (1%).",
        ),
    ] = None,
    min_requests: Annotated[
        int | None,
        typer.Option("--min-requests", metavar="N", min=0, help="Requests of the group that each step needs (200)."),
    ] = None,
    pause: Annotated[bool, typer.Option("--pause", help="Let it go no further.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let it go on.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Give the group a share of 0 now.")] = False,
    promote: Annotated[bool, typer.Option("--promote", help="Give the group all requests now.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Until it is over; the exit status says how.")] = False,
    longest: Annotated[
        str | None,
        typer.Option("--for", metavar="DURATION", help="With --wait: at most so long."),
    ] = None,
    reason: GivenReason = "",
) -> int:
    """Give a group of endpoints more and more of a service's requests, or take them back.

    Exit status of --wait: 0 done; 1 aborted, replaced by another shift, or gone with its service; 3 there is no such
    service or shift; 4 refused, as without a grant; 5 no registry answered at the beginning; 6 still under way after
    --for. A shift that holds or is paused is waited for: give --for in a pipeline.
    """
    from registryctl.shifts import Wanted, run_shift

    orders = {"pause": pause, "resume": resume, "abort": abort, "promote": promote}
    wanted = Wanted(to, steps, every, abort_above, min_requests, [name for name, given in orders.items() if given])
    return run_shift(session, name, wanted, reason, wait=wait, longest=longest)
