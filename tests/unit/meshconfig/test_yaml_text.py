"""YAML for people says what JSON says, whatever the texts in it are, and has its comments where they belong."""

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshconfig.yaml_text import MAX_LINE, yaml_text

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.sampled_from(["on", "1.5", "0x1F", "~", "5s", "::1", "10:20", "- a", "#", "a: b", "GET|HEAD", "", " x", "x "])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3)
)


@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=4))
def test_it_says_the_same_as_the_document(document: dict[str, Any]) -> None:
    """A reader of YAML gets back what was written."""
    assert (yaml.safe_load(yaml_text(document)) or {}) == document


def test_comments_stand_above_what_they_are_about() -> None:
    """The longest path wins; a commented value is not hidden in a line; lines fit on a page."""
    clusters = [{"name": "registry", "checks": [{"timeout": "1s"}]}, {"name": "shop", "checks": [{"timeout": "2s"}]}]
    long = {"words": {f"a-rather-long-word-{number}": "x" * 20 for number in range(5)}}
    comments = {("checks",): "for all", ("registry", "checks"): "for one\nin two lines", ("clusters", 1): "an item"}
    text = yaml_text({"static": {"clusters": clusters}, **long}, comments)
    assert text.splitlines()[:12] == [
        "static:",
        "  clusters:",
        "  - name: registry",
        "    # for one",
        "    # in two lines",
        "    checks: [{timeout: 1s}]",
        "  # an item",
        "  - name: shop",
        "    # for all",
        "    checks: [{timeout: 2s}]",
        "words:",
        "  a-rather-long-word-0: xxxxxxxxxxxxxxxxxxxx",
    ]
    assert max(map(len, text.splitlines())) <= MAX_LINE
