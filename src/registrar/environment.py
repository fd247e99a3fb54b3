"""The environment variables that exec checks and the app of ``registrar exec`` inherit."""

from collections.abc import Iterable, Mapping

_ALWAYS_PASSED = ("PATH", "HOME", "LANG")
# Variables for checks alone: nothing else reads this prefix.
_CHECK_PREFIX = "CHECK_"
_RESERVED = ("REGISTRAR_TOKEN", "REGISTRAR_ENVOY_TOKEN", "NOTIFY_SOCKET")
_RESERVED_PREFIX = "WATCHDOG_"
_MAX_NAMES_LENGTH = 300
"""Characters of names in a detail, which has 1,024 in all; the command's output matters more."""
_MAX_NAME_LENGTH = 100
"""Characters of one name in a detail."""


def is_registrars_own(name: str) -> bool:
    """Tell whether a variable is for the registrar alone: a token, or its socket to systemd."""
    return name in _RESERVED or name.startswith(_RESERVED_PREFIX)


def app_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the app of ``registrar exec``: all variables but the registrar's own."""
    return {name: text for name, text in environ.items() if not is_registrars_own(name)}


def check_environment(environ: Mapping[str, str], named: Iterable[str]) -> dict[str, str]:
    """Return the environment of the command of an exec check.

    The command's output goes to the registry, and from there to the console and the logs. A secret that the command
    did not get cannot be in it.

    Args:
        environ: the registrar's environment.
        named: names in the check's ``env``.
    """
    wanted = {*_ALWAYS_PASSED, *named}
    return {
        name: text
        for name, text in environ.items()
        if (name in wanted or name.startswith(_CHECK_PREFIX)) and not is_registrars_own(name)
    }


def missing_variables(environ: Mapping[str, str], named: Iterable[str]) -> str:
    """Return a sentence that names the variables that a check lacks, without values; empty if there are none."""
    passed = check_environment(environ, named)
    withheld = [name for name in environ if name not in passed and not is_registrars_own(name)]
    unset = sorted(name for name in named if name not in environ)
    sentences = []
    if withheld:
        # The registrar's settings come last: few commands read them.
        names = _shortened(sorted(withheld, key=lambda name: (name.startswith("REGISTRAR_"), name)))
        sentences.append(f"variables not passed to the command: {names} (the check's env passes what it lists)")
    if unset:
        sentences.append(f"env lists variables that are not set in the registrar's environment: {_shortened(unset)}")
    return "; ".join(sentences)


def _shortened(names: list[str]) -> str:
    shown: list[str] = []
    for name in (name[:_MAX_NAME_LENGTH] for name in names):
        if sum(map(len, shown)) + 2 * len(shown) + len(name) > _MAX_NAMES_LENGTH:
            break
        shown.append(name)
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
