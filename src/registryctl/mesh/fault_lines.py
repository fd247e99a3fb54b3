"""Faults of definitions as lines, and a last line that counts them."""

from collections.abc import Sequence

from meshconfig.effective import Configuration
from meshconfig.position import Fault, Severity
from registryctl.faults import counted
from registryctl.mesh.definitions import Checked
from registryctl.mesh.words import plural
from registryctl.output import Screen


def show_checked(screen: Screen, checked: Checked) -> None:
    """Print the faults of definitions, and a line that says whether they can be used."""
    show_faults(screen, checked.faults)
    files = plural(len(checked.files), "file")
    if checked.configuration is None:
        screen.say((f"{counted(checked.faults)} in {files}", "red"))
    else:
        warned = f", {counted(checked.faults)}" if checked.faults else ""
        screen.say(f"{files}: {_content(checked.configuration)}{warned}")


def show_faults(screen: Screen, faults: Sequence[Fault]) -> None:
    """Print faults, a line each."""
    for fault in faults:
        screen.say((str(fault), "" if fault.severity is Severity.ERROR else "yellow"))


def _content(configuration: Configuration) -> str:
    dependencies = sum(len(caller.dependencies) for caller in configuration.callers.values())
    parts = (
        (len(configuration.callers), "service"),
        (len(configuration.gateways), "gateway"),
        (len(configuration.edges), "edge"),
    )
    counts = [plural(number, noun) for number, noun in parts if number or noun == "service"]
    called = "1 dependency" if dependencies == 1 else f"{dependencies} dependencies"
    return ", ".join((*counts, called))
