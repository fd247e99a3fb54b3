"""Verbs about revisions of the mesh configuration: plan, apply, history, rollback, roll-out."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.commands.arguments import GivenReason, Reason, Service
from registryctl.commands.mesh import HERE, Directory
from registryctl.session import Session

Removals = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-removal", metavar="NAME", help="Its definition may go although its Envoys poll; repeat for several."
    ),
]
Envoys = Annotated[
    list[str] | None,
    typer.Option("--with", metavar="PATH", help="Prove it here with this Envoy binary; repeat for several."),
]
Share = Annotated[
    str, typer.Option("--share", metavar="PERCENT", help="Give it to a share of the Envoys first, like 10%.")
]
Base = Annotated[
    int | None,
    typer.Option("--base", metavar="N", min=0, help="Refuse unless revision N is the newest one, as `plan` said it."),
]
Newest = Annotated[
    int | None, typer.Argument(metavar="[N]", min=1, help="The newest revision when not given.", show_default=False)
]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Follow the roll-out until it ends.")]
Number = Annotated[int, typer.Argument(metavar="N", min=1, help="The number of a revision.", show_default=False)]


@verb()
def plan(
    session: Session,
    directory: Directory = HERE,
    removals: Removals = None,
    envoys: Envoys = None,
) -> int:
    """Say what an apply would change, whose Envoys it wakes, in which steps. Exit status 3: changes."""
    from registryctl.mesh.applying import plan_directory

    return plan_directory(session, directory, removals or (), envoys or ())


@verb()
def apply(  # noqa: PLR0913  # the words of the command line
    session: Session,
    reason: Reason,
    directory: Directory = HERE,
    commit: Annotated[
        str | None,
        typer.Option("--commit", metavar="TEXT", help="The commit, for the history; else the one that git names."),
    ] = None,
    share: Share = "",
    base: Base = None,
    removals: Removals = None,
    envoys: Envoys = None,
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Serve it although no Envoy has proven it; that stays visible.")
    ] = False,
    watch: Watch = False,
) -> int:
    """Apply definitions: from now on Envoys are served what they compile to, in steps that lose no request."""
    from registryctl.mesh.applying import Wanted, apply_directory

    wanted = Wanted(reason, commit, share, base, removals or (), envoys or (), unproven=unproven)
    return apply_directory(session, directory, wanted, watch=watch)


@verb()
def history(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 20,
) -> None:
    """List revisions: who applied each, when and why, and by which Envoys it is proven; the newest first."""
    from registryctl.mesh.api import MeshApi
    from registryctl.mesh.revision_table import show_history

    api = MeshApi(session.client)
    if session.json:
        session.screen.document(api.revisions_document(limit))
    else:
        show_history(session.screen, api.revisions(limit), session.client.now)


@verb()
def rollback(session: Session, number: Number, reason: Reason, removals: Removals = None, watch: Watch = False) -> int:
    """Serve again what an earlier revision served. It becomes a new revision: numbers never go back."""
    from registryctl.mesh.applying import roll_back

    return roll_back(session, number, reason, removals or (), watch=watch)


@verb()
def promote(session: Session, number: Newest = None, reason: GivenReason = "", watch: Watch = False) -> int:
    """Give all Envoys the revision that a share of them has."""
    from registryctl.mesh.rollout_view import follow_rollout, give_order

    give_order(session, number, "promote", reason)
    return follow_rollout(session) if watch else 0


@verb()
def pause(session: Session, number: Newest = None, reason: GivenReason = "") -> int:
    """Stop a roll-out at its step until `resume`; what Envoys are served stays as it is."""
    from registryctl.mesh.rollout_view import give_order

    return give_order(session, number, "pause", reason)


@verb()
def resume(session: Session, number: Newest = None, reason: GivenReason = "") -> int:
    """Let a paused roll-out go on."""
    from registryctl.mesh.rollout_view import give_order

    return give_order(session, number, "resume", reason)


@verb()
def rollout(session: Session, watch: Watch = False) -> int:
    """Show roll-outs: each service's step, and the Envoys that it waits for. Exit status 1: one stands still."""
    from registryctl.mesh.rollout_view import follow_rollout, show_rollout

    return follow_rollout(session, begun=False) if watch else show_rollout(session)


@verb()
def forget(session: Session, name: Service, reason: Reason) -> None:
    """Remove a service from gateways that select it by metadata. It has no endpoints, and will get none."""
    from registryctl.mesh.registered import forget_service

    forget_service(session, name, reason)
