"""What every verb has in common: where to ask, how to print, and which exit status an error amounts to."""

import inspect
import os
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from registryctl.errors import CtlError, UsageError
from registryctl.session import Session
from registryctl.settings import read_settings

P = ParamSpec("P")

Url = Annotated[
    list[str] | None,
    typer.Option("--url", metavar="URL", help="Address of the registry, over REGISTRYCTL_URL; repeat for several."),
]
Timeout = Annotated[str | None, typer.Option("--timeout", metavar="DURATION", help="Longest wait for an answer (5s).")]
Actor = Annotated[
    str | None, typer.Option("--actor", metavar="NAME", help="Who asks, for the history (you@this machine).")
]
Output = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FORMAT", help="table, or json for scripts.", show_default=False)
]
_SHARED: dict[str, Any] = {"url": Url, "timeout": Timeout, "actor": Actor}

SHARED = (*_SHARED, "output")
"""The names of the options that all verbs have."""


def verb(*outputs: str) -> Callable[[Callable[Concatenate[Session, P], int | None]], Callable[..., None]]:
    """Return a decorator that makes a verb of a function: it gets a session, and the options that all verbs have.

    Args:
        outputs: the formats that it knows, the usual one first; table and json when none are given.
    """
    known = outputs or ("table", "json")

    def decorate(function: Callable[Concatenate[Session, P], int | None]) -> Callable[..., None]:
        def run(context: typer.Context, **given: Any) -> None:  # noqa: ANN401  # options of any type, by name
            # What stands behind the verb wins over what stands before it.
            before: dict[str, Any] = context.obj or {}
            shared = {name: given.pop(name) or before.get(name) for name in SHARED}
            with _told_plainly():
                session = _session(shared, shared["output"] or known[0], known)
                with closing(session):
                    raise typer.Exit(function(session, **given) or 0)  # type: ignore[call-arg]  # by name, as typer read them

        return _dressed(run, function, known)

    return decorate


def _dressed(run: Callable[..., None], function: Callable[..., Any], outputs: tuple[str, ...]) -> Callable[..., None]:
    """Give ``run`` the name, the help and the options of ``function``, and those that all verbs have."""
    _, *own = inspect.signature(function).parameters.values()
    words = f"{', '.join(outputs[:-1])}, or {outputs[-1]} for scripts"
    option = typer.Option("--output", "-o", metavar="FORMAT", help=f"{words}.", show_default=False)
    output = Annotated[str | None, option]
    shared = [
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_SHARED[name])
            for name in _SHARED
        ),
        inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=output),
    ]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own), *shared]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


def _session(shared: dict[str, Any], output: str, known: tuple[str, ...]) -> Session:
    if output not in known:
        raise UsageError(f"--output: {output!r} is none of {', '.join(known)}")
    settings = read_settings(os.environ, shared["url"] or (), shared["timeout"], shared["actor"])
    return Session(settings, output)


class _told_plainly:  # noqa: N801  # reads as a statement: with _told_plainly()
    """Turn an error into lines on standard error and its exit status."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, CtlError):
            for line in (f"registryctl: {error}", f"  {error.mend}" if error.mend else ""):
                if line:
                    typer.echo("".join(letter if letter.isprintable() else "?" for letter in line), err=True)
            raise typer.Exit(error.status) from None
        if isinstance(error, BrokenPipeError):
            # `| head` has what it wanted. Nothing more is to be flushed at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        if isinstance(error, KeyboardInterrupt):
            raise typer.Exit(130) from None
