"""Command line of ``registryctl``: its verbs, in the order of its help."""

from importlib.metadata import version
from typing import Annotated

import typer

from registryctl.command import Actor, Output, Timeout, Url, errors_to_exit_status, refuse_empty_values
from registryctl.commands import (
    audit,
    errands,
    events,
    examination,
    expiry,
    identities,
    mesh,
    mesh_revisions,
    overrides,
    services,
    shares,
    shifts,
    sign_in,
    strength,
    subscribers,
    tokens,
    traffic,
)
from wire.standard_files import open_missing_files

main = typer.Typer(
    name="registryctl",
    help="Look at Headcount's registry, and tell it what to do.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"registryctl {version('headcount')}")
        raise typer.Exit


@main.callback()
def root(
    context: typer.Context,
    url: Url = None,
    timeout: Timeout = None,
    actor: Actor = None,
    output: Output = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Look at Headcount's registry, and tell it what to do."""
    open_missing_files()
    with errors_to_exit_status():
        refuse_empty_values(context)
    context.obj = {"url": url, "timeout": timeout, "actor": actor, "output": output}


for _panel, _verbs in {
    "Look": (
        services.services,
        services.service,
        services.endpoints,
        services.explain,
        overrides.overrides,
        events.events,
        subscribers.subscribers,
    ),
    "Act": (
        overrides.drain,
        overrides.undrain,
        overrides.weight,
        overrides.canary,
        shares.share,
        shifts.shift,
        overrides.deregister,
        strength.expect,
        strength.acknowledge,
    ),
    "Traffic": (traffic.stat, traffic.edges, traffic.routes),
    "Envoys": (errands.top, errands.tap, errands.log_level),
    "Expiry": (expiry.expiry, expiry.pause, expiry.resume),
    "Trouble": (examination.check, examination.bundle),
    "Access": (sign_in.login, sign_in.logout, sign_in.whoami, sign_in.can, audit.audit),
}.items():
    for _verb in _verbs:
        main.command(rich_help_panel=_panel)(_verb)

for _group, _panel, _help, _members in (
    (
        "mesh",
        "Mesh",
        "Mesh configuration: check definitions, plan and apply them, follow their roll-out.",
        {
            "init": mesh.init,
            "validate": mesh.validate,
            "show": mesh.show,
            "plan": mesh_revisions.plan,
            "apply": mesh_revisions.apply,
            "history": mesh_revisions.history,
            "rollback": mesh_revisions.rollback,
            "rollout": mesh_revisions.rollout,
            "promote": mesh_revisions.promote,
            "pause": mesh_revisions.pause,
            "resume": mesh_revisions.resume,
            "forget": mesh_revisions.forget,
            "diff": mesh.diff,
            "bootstrap": mesh.bootstrap,
            "prove": mesh.prove,
            "publish": mesh.publish,
            "schema": mesh.schema,
            "import": mesh.import_,
        },
    ),
    (
        "envoy",
        "Envoys",
        "Look at what one Envoy holds: its clusters and endpoints, its configuration without secrets.",
        {"clusters": errands.clusters, "config": errands.config},
    ),
    (
        "token",
        "Access",
        "Make, list, rotate and revoke tokens; it needs `admin`.",
        {"create": tokens.create, "list": tokens.list_, "rotate": tokens.rotate, "revoke": tokens.revoke},
    ),
    (
        "identity",
        "Access",
        "Say what AWS roles, certificates, people and networks may do; it needs `admin`.",
        {"set": identities.put, "list": identities.list_, "remove": identities.remove},
    ),
):
    _app = typer.Typer(help=_help, no_args_is_help=True)
    for _name, _verb in _members.items():
        _app.command(_name)(_verb)
    main.add_typer(_app, name=_group, rich_help_panel=_panel)


if __name__ == "__main__":
    main()
