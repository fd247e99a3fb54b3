"""Decorator that makes a verb of a function: common options, a session, and the exit status of each error."""

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer
from msgspec.structs import replace

from registryctl.errors import CtlError, UnreachableError, UsageError
from registryctl.session import Session
from registryctl.settings import read_settings
from registryctl.token import tokens_for
from registryctl.token_store import TokenStore

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

_MAY_BE_EMPTY = frozenset({"reason"})
"""Options whose empty value means nothing else than none."""

SHARED = (*_SHARED, "output")
"""The names of the options that all verbs have."""


def verb(
    *outputs: str, signs_in: bool = True
) -> Callable[[Callable[Concatenate[Session, P], int | None]], Callable[..., None]]:
    """Return a decorator that makes a verb of a function, with a session and the common options.

    Args:
        outputs: the formats that it can print, the default first; table and json when none are given.
        signs_in: whether to send the token of the environment, or the stored one.
    """
    formats = outputs or ("table", "json")

    def decorate(function: Callable[Concatenate[Session, P], int | None]) -> Callable[..., None]:
        def run(context: typer.Context, **given: Any) -> None:  # noqa: ANN401  # options of any type, by name
            # Options behind the verb win over options before it.
            before: dict[str, Any] = context.obj or {}
            shared = {name: given.pop(name) or before.get(name) for name in SHARED}
            with errors_to_exit_status():
                refuse_empty_values(context)
                session = _session(shared, shared["output"] or formats[0], formats, signs_in=signs_in)
                with closing(session), foreign_answers_to_errors(session):
                    raise typer.Exit(function(session, **given) or 0)  # type: ignore[call-arg]  # by name, as typer read them

        return _signed_like(run, function, formats)

    return decorate


def _signed_like(
    run: Callable[..., None], function: Callable[..., Any], formats: tuple[str, ...]
) -> Callable[..., None]:
    """Give ``run`` the name, the help and the options of ``function``, and those that all verbs have."""
    _, *own = inspect.signature(function).parameters.values()
    words = f"{', '.join(formats[:-1])}, or {formats[-1]} for scripts" if formats[1:] else f"{formats[0]}, always"
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
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    parameters = [context, *own, *shared]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


def _session(shared: dict[str, Any], output: str, formats: tuple[str, ...], *, signs_in: bool) -> Session:
    if output not in formats:
        raise UsageError(f"--output: {output!r} is none of {', '.join(formats)}")
    settings = read_settings(os.environ, shared["url"] or (), shared["timeout"], shared["actor"])
    if signs_in:
        settings = replace(settings, tokens=tokens_for(os.environ, settings.urls, TokenStore(os.environ)))
    return Session(settings, output)


def refuse_empty_values(context: typer.Context) -> None:
    """Refuse an option or an argument with an empty value, which is mostly a shell's variable that is not set.

    Taken as one that is not given, it would mean something wider: another registry, all services.

    Raises:
        UsageError: the command line has one.
    """
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in _MAY_BE_EMPTY or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params.get(name)
        if "" in (value if isinstance(value, list | tuple) else [value]):
            label = parameter.opts[0] if parameter.opts[0].startswith("-") else (parameter.metavar or name).strip("[].")
            raise UsageError(f"{label}: received an empty value", "give one, or leave it out")


@contextmanager
def foreign_answers_to_errors(session: Session) -> Iterator[None]:
    """Say that an answer has not the form of a registry's: a proxy, or another program, has written it.

    Raises:
        UnreachableError: so it is.
    """
    try:
        yield
    except UnicodeEncodeError:
        # The terminal's, and none of the answer.
        raise
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        if not session.answered:
            raise
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "registryctl" in frame.filename]
        what = f"{type(error).__name__}: {error} ({Path(own[-1].filename).name}:{own[-1].lineno})"
        raise UnreachableError(
            f"{session.client.shown} answers in another form than a registry: {what}",
            "check that --url or REGISTRYCTL_URL names a registry and no other program; if it does, upgrade this "
            "command, or report this line",
            from_registry=False,
        ) from error


@contextmanager
def errors_to_exit_status() -> Iterator[None]:
    """Print an error on standard error and exit with its status."""
    try:
        yield
    except CtlError as error:
        for line in (*error.details, f"registryctl: {error}", f"  {error.fix}" if error.fix else ""):
            if line:
                typer.echo("".join(letter if letter.isprintable() else "?" for letter in line), err=True)
        raise typer.Exit(error.status) from None
    except BrokenPipeError:
        # The reader, like `| head`, has closed the pipe. Nothing more is to be flushed at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
