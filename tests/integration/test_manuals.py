"""Man pages and shell completion: every verb and option is in them, and each shell reads them."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

PACKAGES = Path(__file__).parents[2] / "deploy" / "packages"
PROGRAMS = ("registrar", "registry", "registryctl")


def _loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PACKAGES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def manuals() -> Iterator[ModuleType]:
    """The script that writes them; it imports its neighbour by name."""
    _loaded("commands")
    yield _loaded("manuals")
    del sys.modules["commands"], sys.modules["manuals"]


@pytest.fixture(scope="module")
def directory(manuals: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What it writes."""
    target: Path = tmp_path_factory.mktemp("manuals")
    manuals.write_manuals(target, datetime(2026, 11, 29, tzinfo=UTC))
    return target


def test_every_verb_and_option_is_in_the_page_and_in_each_completion(manuals: ModuleType, directory: Path) -> None:
    """They are made from the parsers, so what the program knows is there."""
    count = 0
    for program in manuals.programs():
        page = (directory / f"{program.name}.1").read_text().replace("\\-", "-")
        shells = [(directory / name.format(program.name)).read_text() for name in ("{}.bash", "_{}", "{}.fish")]
        for words, command in program.walk():
            assert len(words) == 1 or f'.SS "{" ".join((*words, *command.arguments))}"' in page
            for option in command.options:
                count += 1
                for flag in option.flags:
                    assert f"\\fB{flag}\\fR" in page
                    assert flag in shells[0]
                    assert flag in shells[1]
                    assert f" {'-l' if flag.startswith('--') else '-s'} {flag.lstrip('-')} " in shells[2]
            assert all(" ".join(words) in text for text in shells)
    assert count > 200


def test_each_program_has_its_page_and_three_completions(directory: Path) -> None:
    """The names are those by which man and the shells find them."""
    names = [(f"{name}.1", f"{name}.bash", f"_{name}", f"{name}.fish") for name in PROGRAMS]
    assert {path.name for path in directory.iterdir()} == {name for group in names for name in group}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_page_escapes_what_roff_would_read_as_a_command(directory: Path, program: str) -> None:
    """Only known macros begin a line, so no sentence can be lost that begins with a dot or a quote."""
    for line in (directory / f"{program}.1").read_text().splitlines():
        assert line
        if line.startswith((".", "'")):
            assert line.split()[0] in {".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".BR", ".I"}


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (("registryctl", "mesh", "ap"), "apply"),
        (("registryctl", "--url", "mesh", "whoa"), "whoami"),
        (("registryctl", "mesh", "apply", "--re"), "--reason"),
        (("registryctl", "services", "--url", ""), ""),
        (("registrar", "dr"), "drain"),
        (("registry", "token", "create", "--a"), "--admin"),
    ],
)
def test_bash_completes_verbs_and_options(directory: Path, typed: tuple[str, ...], offered: str) -> None:
    """The value of an option is no verb, and is left to readline."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    script = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _$1; echo "${COMPREPLY[@]}"'
    command = [bash, "--norc", "-c", script, str(directory / f"{typed[0]}.bash"), *typed]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (offered, "")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("shell", "option", "name"), [("zsh", "-n", "_{}"), ("fish", "--no-execute", "{}.fish"), ("bash", "-n", "{}.bash")]
)
def test_shells_can_read_the_completion(directory: Path, program: str, shell: str, option: str, name: str) -> None:
    """The syntax is that of the shell."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell} here: apt-get install {shell}")
    command = [found, option, str(directory / name.format(program))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("program", PROGRAMS)
def test_man_has_nothing_to_say_about_the_page(directory: Path, program: str) -> None:
    """Groff warns of no macro, escape or table that it does not know."""
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("no groff here: apt-get install groff-base")
    command = [groff, "-man", "-Tutf8", "-ww", "-Kutf8", str(directory / f"{program}.1")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert program.upper() in done.stdout
