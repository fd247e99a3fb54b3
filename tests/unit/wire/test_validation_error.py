"""What is said against a value of a document: sentences, made from what the real decoder says."""

from typing import Annotated, Literal

import msgspec
import pytest

from wire.model import Label, ServiceName
from wire.validation_error import described

SERVICE_NAME = "has to be letters, digits and . _ : @ ~ -, with a letter or digit at its beginning, 255 at most"


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    """A document in another one."""

    weight: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    seconds: Annotated[float, msgspec.Meta(gt=0, lt=60)] = 1.0
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=3)] = "a"
    drain: bool = False
    code: Annotated[str, msgspec.Meta(pattern="^a*$")] = ""
    word: Literal["yes", "no"] = "no"
    service: ServiceName = "a"
    label: Label = ""
    path: Annotated[str, msgspec.Meta(pattern=r"^\d*$(?!\n)")] = ""
    tags: Annotated[list[str], msgspec.Meta(max_length=1)] = []
    words: dict[Annotated[str, msgspec.Meta(pattern="^a*$")], Literal["yes", "no"]] = {}
    pairs: list[tuple[str, Literal["on", "off"]]] = []


class Open(msgspec.Struct, tag_field="verb", tag="open"):
    """A document that says what it is."""


class Close(msgspec.Struct, tag_field="verb", tag="close"):
    """Another one."""


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    """A document."""

    inner: Inner
    act: Open | Close | None = None
    word: str = ""


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ('{"inner": {"weight": 0}}', "weight has to be at least 1"),
        ('{"inner": {"weight": 10001}}', "weight has to be at most 10000"),
        ('{"inner": {"weight": "many"}}', "weight has to be a whole number or null, not a text"),
        ('{"inner": {"seconds": 0}}', "seconds has to be more than 0"),
        ('{"inner": {"seconds": 60.5}}', "seconds has to be less than 60"),
        ('{"inner": {"name": ""}}', "name has to have at least 1 letters"),
        ('{"inner": {"name": "abcd"}}', "name has to have at most 3 letters"),
        ('{"inner": {"drain": "yes"}}', "drain has to be true or false, not a text"),
        ('{"inner": {"tags": ["a", "b"]}}', "tags has to have at most 1 items"),
        ('{"inner": {"weihgt": 1}}', "inner has no field `weihgt`"),
        ('{"inner": {"code": "b"}}', "code has to match the pattern ^a*$"),
        ('{"inner": {"service": "a b"}}', f"service {SERVICE_NAME}"),
        ('{"inner": {"label": "\\u0007"}}', "label has to be without control characters"),
        ('{"inner": {"path": "\\\\"}}', r"path has to match the pattern ^\d*$"),
        ('{"inner": {"word": "perhaps"}}', "word has to be one of no, yes, not 'perhaps'"),
        ('{"inner": {"words": {"a": "perhaps"}}}', "a value of words has to be one of no, yes, not 'perhaps'"),
        ('{"inner": {"words": {"b": "no"}}}', "a key of words has to match the pattern ^a*$"),
        ('{"inner": {"pairs": [["yes", "up"]]}}', "pairs[0][1] has to be one of off, on, not 'up'"),
        ('{"inner": {}, "act": {"verb": "slam"}}', "verb has to be one of open, close, not 'slam'"),
        ("{}", "the document lacks the field `inner`"),
        ("[]", "the document has to be an object, not a list"),
    ],
)
def test_what_the_decoder_says_becomes_a_sentence(document: str, said: str) -> None:
    """It names the field and what it has to be, without the decoder's own words."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(document, type=Outer)
    assert described(caught.value, Outer)[0] == said


def test_what_has_no_sentence_stays() -> None:
    """A message of a newer decoder is better than none."""
    assert described(msgspec.ValidationError("Something new - at `$.word`"), Outer) == ("word: Something new", "$.word")
