"""Write man pages and shell completion of the three programs into a directory, from their own parsers.

`make packages` runs it, so that neither can differ from the program in the same package. Completion knows verbs and
options; it starts no program and asks no registry, since a key that is pressed must not wait for a network.
"""

import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from commands import Command, Option, programs

_SUMMARIES = {
    "registrar": "health-check sidecar that registers an application with Headcount's registry",
    "registry": "service registry for Envoy, on PostgreSQL",
    "registryctl": "look at Headcount's registry, and tell it what to do",
}
_FILES = {
    "registrar": (
        ("/etc/registrar/services.d/*.yaml", "The services of this machine, as the unit reads them."),
        ("/etc/registrar/environment", "REGISTRAR_* variables of the unit headcount-registrar."),
        (
            "/run/headcount-envoy/overlay.json",
            "The overlay of Envoy's bootstrap, which the unit headcount-envoy-overlay writes before Envoy starts.",
        ),
        ("/run/headcount-registrar/admin.sock", "The admin interface of the unit, for --admin-listen unix:PATH."),
    ),
    "registry": (
        ("/etc/registry/environment", "REGISTRY_* variables of the unit headcount-registry."),
        ("/var/lib/headcount-registry", "What discovery is served from while PostgreSQL is unavailable."),
    ),
    "registryctl": (),
}
_VARIABLES = {
    "registrar": "Every setting is a variable REGISTRAR_*, and a flag wins over it: docs/reference/settings.md.",
    "registry": "Every setting is a variable REGISTRY_*: docs/reference/settings.md.",
    "registryctl": "REGISTRYCTL_URL and the other variables that replace an option are in docs/reference/commands.md.",
}


def write_manuals(directory: Path, date: datetime) -> None:
    """Write NAME.1, NAME.bash, _NAME and NAME.fish for each program."""
    directory.mkdir(parents=True, exist_ok=True)
    for program in programs():
        for name, text in (
            (f"{program.name}.1", man_page(program, date)),
            (f"{program.name}.bash", bash_completion(program)),
            (f"_{program.name}", zsh_completion(program)),
            (f"{program.name}.fish", fish_completion(program)),
        ):
            (directory / name).write_text(text)


def man_page(program: Command, date: datetime) -> str:
    """Return the page of section 1 in the macros of man(7)."""
    name = program.name
    lines = [
        f'.TH {name.upper()} 1 "{date:%Y-%m-%d}" "headcount {version("headcount")}" "Headcount"',
        ".SH NAME",
        f"{name} \\- {_roff(_SUMMARIES[name])}",
        ".SH SYNOPSIS",
        f".B {name}",
        "[\\fIoptions\\fR] \\fIverb\\fR [\\fIoptions\\fR] [\\fIarguments\\fR]",
        ".SH DESCRIPTION",
        *_paragraphs(program.help),
        ".SH OPTIONS",
        *_options(program),
        ".SH VERBS",
    ]
    for words, command in program.walk():
        if len(words) > 1:
            synopsis = " ".join((*words, *command.arguments))
            lines += [f'.SS "{_roff(synopsis)}"', *_paragraphs(command.help), *_options(command)]
    lines += [".SH ENVIRONMENT", _roff(_VARIABLES[name])]
    if _FILES[name]:
        lines.append(".SH FILES")
        lines += [part for path, text in _FILES[name] for part in (".TP", f".I {_roff(path)}", _roff(text))]
    others = ", ".join(f".BR {other} (1)" for other in _SUMMARIES if other != name)
    lines += [".SH SEE ALSO", *others.replace(", ", " ,\n").split("\n")]
    return "\n".join(lines) + "\n"


def _options(command: Command) -> Iterator[str]:
    for option in command.options:
        flags = ", ".join(f"\\fB{_roff(flag)}\\fR" for flag in option.flags)
        value = f" \\fI{_roff(option.value)}\\fR" if option.value else ""
        yield from (".TP", flags + value, _roff(_one_line(option.help)))


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield _roff(_one_line(paragraph))


def _roff(text: str) -> str:
    """Escape what roff reads as a command: backslashes, hyphens, and a dot or quote that begins a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def bash_completion(program: Command) -> str:
    """Return a function for bash: it finds the verb on the line, and offers what may follow it."""
    name = program.name
    return f"""# bash completion for {name}; written by deploy/packages/manuals.py from the program's parser
_{name}() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} verb={name} word skip=
  COMPREPLY=()
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    [[ -n $skip ]] && {{ skip=; continue; }}
    case $word in
      {_with_value(program)}) skip=1 ;;
      *) case "$verb $word" in {_verbs(program)}) verb="$verb $word" ;; esac ;;
    esac
  done
  # The value of an option: readline's own completion of files takes over.
  [[ -n $skip ]] && return
  case $verb in
{_cases(program, lambda command: f'COMPREPLY=($(compgen -W "{" ".join(_candidates(command))}" -- "$current"))')}
  esac
}}
complete -o default -F _{name} {name}
"""


def zsh_completion(program: Command) -> str:
    """Return a completion function for zsh, with the help of each candidate."""
    name = program.name

    def offer(command: Command) -> str:
        pairs = [f"'{_quoted(word).replace(':', chr(92) + ':')}:{_quoted(text)}'" for word, text in _described(command)]
        return f"candidates=({' '.join(pairs)})"

    return f"""#compdef {name}
# zsh completion for {name}; written by deploy/packages/manuals.py from the program's parser
_{name}() {{
  local verb={name} word skip=
  local -a candidates
  for word in ${{words[2,CURRENT-1]}}; do
    [[ -n $skip ]] && {{ skip=; continue; }}
    case $word in
      ({_with_value(program)}) skip=1 ;;
      (*) case "$verb $word" in ({_verbs(program)}) verb="$verb $word" ;; esac ;;
    esac
  done
  [[ -n $skip ]] && {{ _files; return; }}
  case $verb in
{_cases(program, offer, opening="(")}
  esac
  _describe '{name}' candidates || _files
}}
_{name} "$@"
"""


def fish_completion(program: Command) -> str:
    """Return the completions of fish, each with the verb after which it is offered."""
    name = program.name
    lines = [
        f"# fish completion for {name}; written by deploy/packages/manuals.py from the program's parser",
        f"function __{name}_verb",
        f"  set -l verb {name}",
        "  set -l skip",
        "  for word in (commandline -opc)[2..-1]",
        '    if test -n "$skip"',
        "      set skip",
        "      continue",
        "    end",
        f"    if contains -- $word {_with_value(program).replace('|', ' ')}",
        "      set skip 1",
        f'    else if contains -- "$verb $word" {_verbs(program).replace("|", " ")}',
        '      set verb "$verb $word"',
        "    end",
        "  end",
        '  test "$verb" = "$argv"',
        "end",
    ]
    for words, command in program.walk():
        condition = f"complete -c {name} -n '__{name}_verb {' '.join(words)}'"
        lines += [f"{condition} -f -a {child.name} -d '{_quoted(_first(child.help))}'" for child in command.commands]
        lines += [f"{condition} {_fish_option(option)}" for option in command.options]
    return "\n".join(lines) + "\n"


def _fish_option(option: Option) -> str:
    flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
    return f"{flags}{' -r' if option.value else ''} -d '{_quoted(_first(option.help))}'"


def _cases(program: Command, offer: Callable[[Command], str], opening: str = "") -> str:
    return "\n".join(f'    {opening}"{" ".join(words)}") {offer(command)} ;;' for words, command in program.walk())


def _with_value(program: Command) -> str:
    """Return the spellings of all options that take a value, as alternatives of a pattern."""
    options = [option for _, command in program.walk() for option in command.options if option.value]
    return "|".join(sorted({flag for option in options for flag in option.flags})) or "-"


def _verbs(program: Command) -> str:
    """Return the paths of all verbs, as alternatives of a pattern."""
    return "|".join(f'"{" ".join(words)}"' for words, _ in program.walk() if len(words) > 1)


def _candidates(command: Command) -> list[str]:
    return [word for word, _ in _described(command)]


def _described(command: Command) -> list[tuple[str, str]]:
    verbs = [(child.name, _first(child.help)) for child in command.commands]
    return verbs + [(flag, _first(option.help)) for option in command.options for flag in option.flags]


def _first(text: str) -> str:
    """Return the first sentence, which is what fits beside a candidate."""
    return re.split(r"(?<=[.!?])\s", _one_line(text))[0].rstrip(".")


def _quoted(text: str) -> str:
    """Return a text that can stand between single quotes in all three shells."""
    return text.replace("\\", "").replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")


if __name__ == "__main__":
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else datetime.now(tz=UTC).timestamp()
    write_manuals(Path(sys.argv[1]), datetime.fromtimestamp(seconds, tz=UTC))
