"""The words of the code: names that say what a thing is, and docstrings that begin with one short sentence."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src"
NAMELESS = {"told", "one", "found"}
"""Words that say of a thing no more than that it is there."""
MAX_WORDS = 20
"""Words of a docstring's first sentence."""
HEADLESS = re.compile(r"(Who|What|Whoever|Whatever|Which|Those)\b")
"""A sentence that begins so names its subject late, or never."""


def trees() -> Iterator[tuple[str, ast.Module]]:
    """Yield the name and the syntax tree of every module."""
    for path in sorted(SOURCES.rglob("*.py")):
        yield str(path.relative_to(SOURCES)), ast.parse(path.read_text())


def bound(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield each name that a parameter, attribute, variable, import or definition has, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case _:
                pass


def first_lines(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the first paragraph of each docstring, with the line of its definition."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text.partition("\n\n")[0]


def is_short_sentence(text: str) -> bool:
    """Tell whether a text is a sentence of at most twenty words that begins with its subject or its verb."""
    return len(text.split()) <= MAX_WORDS and text.endswith((".", ":")) and not HEADLESS.match(text)


def test_names_say_what_they_name() -> None:
    """No parameter, attribute or variable is called `told`, `one` or `found`: say what it holds."""
    nameless = [
        f"{module}:{line} {name}"
        for module, tree in trees()
        for line, name in bound(tree)
        if name.strip("_") in NAMELESS
    ]
    assert nameless == []


def test_docstrings_begin_with_a_short_sentence() -> None:
    """It has at most twenty words, ends with a full stop, and does not begin with Who, What, Which or Those."""
    long = [
        f"{module}:{line} {text}"
        for module, tree in trees()
        for line, text in first_lines(tree)
        if not is_short_sentence(text)
    ]
    assert long == []


def test_what_breaks_the_rules_is_seen() -> None:
    """Each way of binding a name is looked at, and each kind of first line that is refused."""
    source = """
def told(one, *, found=None):
    for one in (): pass
    with open("x") as found: pass
    told.one = [one for one in ()]
    lambda told: told
    import os as found
    try: pass
    except OSError as one: pass
    match 1:
        case [*found]: pass
"""
    assert len([name for _, name in bound(ast.parse(source)) if name in NAMELESS]) == 11
    assert not is_short_sentence("Who asks for it.")
    assert not is_short_sentence("A sentence without an end")
    assert not is_short_sentence(f"{'word ' * MAX_WORDS}word.")
    assert is_short_sentence("Return the endpoint.")
