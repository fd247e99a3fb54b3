"""JSON documents that decide who somebody is: none of them may say two things."""

import json


def parse_strictly(text: str) -> object:
    """Return the value of a JSON document in which no object has a name twice.

    Python, like most readers, keeps the last of two equal names; another reader may keep the first.

    Raises:
        ValueError: the text is no such document.
    """
    try:
        parsed: object = json.loads(text, object_pairs_hook=_without_repetition)
    except RecursionError:
        raise ValueError("the document is nested too deeply") from None
    return parsed


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        raise ValueError("an object has a name twice")
    return parsed
