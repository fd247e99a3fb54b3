"""Any input: definitions are refused or read, and nothing is raised, whatever stands in the files."""

import json
import random
from typing import Any

from harness.definitions import FIELDS, FILES, documents
from hypothesis import example, given
from hypothesis import strategies as st

from meshconfig.position import Fault
from meshconfig.repository import Cache, read
from meshconfig.source import decode

SCRAPS = [
    "*t",
    "&t",
    "!!str",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "\t",
    "\0",
    "\u2028",
    "\ufeff",
    "---\n",
    "null",
    "'",
    '"',
    "é",
]

edits = st.lists(
    st.tuples(
        st.sampled_from(sorted(FILES)),
        st.integers(0, 900),
        st.integers(0, 12),
        st.sampled_from(SCRAPS) | st.text(max_size=4) | st.sampled_from(FIELDS),
    ),
    min_size=1,
    max_size=4,
)


def edited(changes: list[tuple[str, int, int, str]]) -> dict[str, str]:
    """Return the files with places cut out and replaced."""
    files = dict(FILES)
    for file, place, length, scrap in changes:
        start = place % (len(files[file]) + 1)
        files[file] = files[file][:start] + scrap + files[file][start + length :]
    return files


def assert_well_formed(files: dict[str, str], faults: list[Fault]) -> None:
    """Assert that each fault points into its file, and that messages are sentences for one line."""
    for fault in faults:
        text = files[fault.position.file]
        for line_break in ("\r\n", "\r", "\x85", "\u2028", "\u2029"):
            text = text.replace(line_break, "\n")
        lines = text.split("\n")
        assert 0 <= fault.position.line <= len(lines), fault
        if fault.position.line:
            assert 1 <= fault.position.column <= len(lines[fault.position.line - 1]) + 1, fault
        assert fault.message.endswith((".", "?")), fault
        assert not fault.fix or fault.fix.endswith((".", "?")), fault
        assert "\n" not in str(fault)
        assert len(str(fault)) < 2000


def test_what_is_edited_is_read() -> None:
    """The files that the others change are right as they are."""
    configuration, faults = read(FILES)
    assert configuration is not None, faults


@given(edits)
def test_edited_files_never_raise(changes: list[tuple[str, int, int, str]]) -> None:
    """Every edit is read or refused with a position, and origins can be asked for."""
    files = edited(changes)
    configuration, faults = read(files, registered=["user", "shop"])
    assert_well_formed(files, faults)
    if configuration is not None:
        assert all(len(caller.origins) >= len(caller.dependencies) for caller in configuration.callers.values())
        assert "mesh.environment" in configuration.origins


@given(st.dictionaries(st.sampled_from(sorted(FILES)), st.text()))
@example({"edges/www.yaml": "0\n\x850"})
@example({"services/web.yaml": 'dependencies: [{service: a, routes: [{prefix: /, cookie: {"a\\nb": 1}}]}]'})
def test_texts_never_raise(texts: dict[str, str]) -> None:
    """Files of any text are read or refused."""
    files = FILES | texts
    assert_well_formed(files, read(files)[1])


@given(documents)
def test_values_of_any_type_never_raise(written: dict[str, Any]) -> None:
    """Known keys, with values of the right types and of others, are read or refused."""
    files = FILES | {file: json.dumps(document) for file, document in written.items()}
    assert_well_formed(files, read(files)[1])


@given(st.binary())
def test_bytes_are_decoded_or_refused(content: bytes) -> None:
    """Bytes that are no UTF-8 are refused where they begin to be none."""
    text, faults = decode("a", content)
    assert faults or text.encode() == content
    for fault in faults:
        before = content.decode("utf-8", "replace")
        assert fault.position.line <= before.count("\n") + before.count("\r") + before.count("\x85") + 1 + sum(
            before.count(each) for each in "\u2028\u2029"
        )


@given(st.randoms(use_true_random=False), edits)
def test_the_order_of_files_does_not_matter(shuffle: random.Random, changes: list[tuple[str, int, int, str]]) -> None:
    """Files in another order say the same, and have the same faults in the same order."""
    files = edited(changes)
    names = list(files)
    shuffle.shuffle(names)
    assert read({name: files[name] for name in names}) == read(files)


@given(edits, edits)
def test_a_cache_changes_nothing(
    first: list[tuple[str, int, int, str]], second: list[tuple[str, int, int, str]]
) -> None:
    """A repository that is read after others is read as if it were the first."""
    cache = Cache()
    for files in (FILES, edited(first), edited(second), FILES):
        assert read(files, cache=cache) == read(files)
