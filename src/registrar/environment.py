"""Environment variables of child processes: which ones an exec check and the app of ``registrar exec`` get."""

from collections.abc import Iterable, Mapping

_ALWAYS = ("PATH", "HOME", "LANG")
# Values for checks only: nothing else reads this prefix, so whoever sets one means it for them.
_PREFIX = "CHECK_"
_OWN = ("REGISTRAR_TOKEN", "NOTIFY_SOCKET")
_OWN_PREFIX = "WATCHDOG_"
# Characters of names in a detail: the wire carries 1,024 in all, and the command's output matters more.
_MAX_NAMES_LENGTH = 300
_MAX_NAME_LENGTH = 100


def is_registrars_own(name: str) -> bool:
    """Tell whether a variable is the registrar's alone: its secret, or its channel to systemd."""
    return name in _OWN or name.startswith(_OWN_PREFIX)


def app_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the app of ``registrar exec`` inherits: everything but the registrar's own variables."""
    return {name: text for name, text in environ.items() if not is_registrars_own(name)}


def check_environment(environ: Mapping[str, str], named: Iterable[str]) -> dict[str, str]:
    """Return what an exec check inherits.

    Its output goes to the registry, and from there to the console and the logs: a secret that the command never
    had cannot be in it.

    Args:
        environ: the registrar's environment.
        named: the variables that the check's ``env`` lists.
    """
    wanted = {*_ALWAYS, *named}
    return {
        name: text
        for name, text in environ.items()
        if (name in wanted or name.startswith(_PREFIX)) and not is_registrars_own(name)
    }


def missing_variables(environ: Mapping[str, str], named: Iterable[str]) -> str:
    """Return a sentence that names the variables which a check lacks, or nothing; values are never in it."""
    passed = check_environment(environ, named)
    withheld = [name for name in environ if name not in passed and not is_registrars_own(name)]
    unset = sorted(name for name in named if name not in environ)
    sentences = []
    if withheld:
        # The registrar's settings come last: few commands read them.
        names = _shortened(sorted(withheld, key=lambda name: (name.startswith("REGISTRAR_"), name)))
        sentences.append(f"variables not passed to the command: {names} (the check's env passes what it lists)")
    if unset:
        sentences.append(f"env lists variables that the registrar does not have: {_shortened(unset)}")
    return "; ".join(sentences)


def _shortened(names: list[str]) -> str:
    shown: list[str] = []
    for name in (name[:_MAX_NAME_LENGTH] for name in names):
        if sum(map(len, shown)) + 2 * len(shown) + len(name) > _MAX_NAMES_LENGTH:
            break
        shown.append(name)
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
