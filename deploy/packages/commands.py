"""The verbs, options and arguments of a program, read from its own parser: argparse's or Typer's."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import typer

from registrar.command_line import VERBS, build_parser
from registry.cli import main as registry
from registryctl.cli import main as registryctl


@dataclass(frozen=True)
class Option:
    """One option: its spellings, its help, and the word for its value if it takes one."""

    flags: tuple[str, ...]
    help: str
    value: str | None = None


@dataclass(frozen=True)
class Command:
    """One program or verb, with the verbs below it."""

    name: str
    help: str
    options: tuple[Option, ...] = ()
    arguments: tuple[str, ...] = ()
    commands: tuple["Command", ...] = field(default=())

    def walk(self, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], "Command"]]:
        """Yield this command and all below it, each with the words that lead to it."""
        words = (*above, self.name)
        yield words, self
        for command in self.commands:
            yield from command.walk(words)


def programs() -> tuple[Command, ...]:
    """Return the three programs, sorted by their name."""
    return (_registrar(), _of_typer(registry), _of_typer(registryctl))


def _registrar() -> Command:
    # The parser adds the options of one verb at a time, so it is built once for each.
    verbs = tuple(
        _of_argparse(verb, help_text, _subparser(build_parser(verb), verb)) for verb, help_text in VERBS.items()
    )
    parser = build_parser("")
    return Command("registrar", f"{parser.description}\n\n{parser.epilog}", tuple(_flags(parser)), (), verbs)


def _subparser(parser: argparse.ArgumentParser, verb: str) -> argparse.ArgumentParser:
    action = next(item for item in parser._actions if isinstance(item, argparse._SubParsersAction))  # noqa: SLF001
    return action.choices[verb]


def _of_argparse(name: str, help_text: str, parser: argparse.ArgumentParser) -> Command:
    rest = ("-- COMMAND...",) if name == "exec" else ()
    return Command(name, _sentence(help_text), tuple(_flags(parser)), rest)


def _flags(parser: argparse.ArgumentParser) -> Iterator[Option]:
    for action in parser._actions:  # noqa: SLF001  # argparse has no other list of them
        if not action.option_strings or action.help == argparse.SUPPRESS:
            continue
        value = None if action.nargs == 0 else str(action.metavar or action.dest).strip("<>").upper()
        yield Option(tuple(action.option_strings), _sentence(action.help or ""), value)


def _of_typer(app: typer.Typer) -> Command:
    command = typer.main.get_command(app)
    return _of_click(command, str(command.name))


def _of_click(command: Any, name: str) -> Command:  # noqa: ANN401  # Typer types neither commands nor parameters
    context = typer.Context(command, info_name=name)
    options, arguments = [], []
    for param in command.get_params(context):
        if param.hidden:
            continue
        if param.param_type_name == "argument":
            arguments.append(param.metavar or param.name.upper())
        else:
            options.append(_click_option(param))
    below = tuple(_of_click(child, key) for key, child in getattr(command, "commands", {}).items() if not child.hidden)
    return Command(name, _sentence(command.help or ""), tuple(options), tuple(arguments), below)


def _click_option(param: Any) -> Option:  # noqa: ANN401
    flags = tuple(sorted((*param.opts, *param.secondary_opts), key=len, reverse=True))
    value = None if param.is_flag else (param.metavar or param.name).upper()
    return Option(flags, _sentence(param.help or ""), value)


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if not text or text[-1] in ".:!?)" else ".")
