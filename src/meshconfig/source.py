"""Text of a YAML file to nodes with positions; everything that YAML allows and definitions do not is refused here.

Nodes are built from the events of libyaml, not composed by PyYAML: that recurses in C, and would follow any nesting. An
event at a time, a file is left where its limits end.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from msgspec import Struct

from meshconfig.position import Fault, Position
from meshconfig.quotation import clipped

MAX_BYTES = 1 << 20
"""Bytes of a file."""
MAX_NODES = 100_000
"""Nodes of a file, where each alias counts as often as it is used."""
MAX_DEPTH = 32
"""Levels of nesting."""

_CONFLICT = re.compile(r"^<{7}(?: .*)?$", re.MULTILINE)
"""The first line of a conflict that git could not merge."""
_LINE_BREAKS = ("\r\n", "\n", "\r", "\x85", "\u2028", "\u2029")
"""Line breaks of YAML 1.1, by which libyaml counts lines."""


class Scalar(Struct, gc=False):
    """A text. ``plain`` ones are neither quoted nor a block, so that ``5`` or ``true`` may be meant."""

    text: str
    plain: bool
    line: int
    column: int


class Sequence(Struct):
    """A list of nodes."""

    items: list["Node"]
    line: int
    column: int


class Mapping(Struct):
    """Nodes by key, and the place (line, column) of each key."""

    entries: dict[str, "Node"]
    keys: dict[str, tuple[int, int]]
    line: int
    column: int


Node = Scalar | Sequence | Mapping


def decode(file: str, content: bytes) -> tuple[str, list[Fault]]:
    """Return the text of a file's bytes, or the fault at the first byte that is not UTF-8."""
    try:
        return content.decode("utf-8"), []
    except UnicodeDecodeError as error:
        position = _end(file, content[: error.start].decode("utf-8"))
        return "", [Fault(position, "The file is not UTF-8 from here.", "Save it as UTF-8.")]


def parse(file: str, text: str, *, several: bool = False) -> tuple[Node | None, list[Fault]]:
    """Return the nodes of a file, None where it cannot be read to its end, and all faults.

    A file without a document, such as one of comments alone, is an empty mapping. The part in front of the place
    where a file cannot be read on is not returned: half a file would seem to lack what follows. With ``several``, a
    file may have further documents, which are held to the same limits together and of which the first is returned.
    """
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        message = "The file has half of a surrogate pair here, which no UTF-8 file can have."
        return None, [Fault(_end(file, text[: error.start]), message, "Remove it.")]
    if size > MAX_BYTES:
        message = f"The file has {size:,} bytes, and at most {MAX_BYTES:,} are allowed."
        return None, [Fault(Position(file, 1, 1), message, "Split it, or move what many share into a group.")]
    builder = _Builder(file, several=several)
    try:
        builder.build(yaml.parse(text, Loader=yaml.CSafeLoader))
    except _RefusedError as refused:
        return None, [*builder.faults, refused.fault]
    except yaml.MarkedYAMLError as error:
        return None, [*builder.faults, _syntax_fault(file, text, error)]
    except yaml.reader.ReaderError as error:
        return None, [*builder.faults, _character_fault(file, text, error)]
    root = builder.root
    # A document that only its marker begins is as empty as a file without one.
    is_empty = type(root) is Scalar and root.plain and not root.text
    return Mapping({}, {}, 1, 1) if root is None or is_empty else root, builder.faults


class _RefusedError(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class _Open:
    """A collection whose end has not come yet.

    Attributes:
        node: the collection.
        key: of a mapping, the key whose value comes next; None where a key comes next.
        skipped: whether that value is left out, as its key is a duplicate.
        anchor: its anchor, if it has one.
        size: nodes of the file, counted with aliases, when it began.
    """

    __slots__ = ("anchor", "key", "node", "size", "skipped")

    def __init__(self, node: Sequence | Mapping, anchor: str | None, size: int) -> None:
        self.node = node
        self.key: str | None = None
        self.skipped = False
        self.anchor = anchor
        self.size = size


class _Builder:
    """The nodes of one file, from its events.

    Attributes:
        root: the document, from its first node on.
        faults: duplicate keys; everything else that is refused ends the file.
    """

    def __init__(self, file: str, *, several: bool = False) -> None:
        self.root: Node | None = None
        self.faults: list[Fault] = []
        self._file = file
        self._several = several
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int] | None] = {}  # None while the anchored collection is open
        self._count = 0
        self._documents = 0

    def build(self, events: Iterator[Any]) -> None:
        """Take all events.

        Raises:
            _RefusedError: the file has something after which it is not read on.
        """
        for event in events:
            kind = type(event)
            if kind is yaml.ScalarEvent:
                mark = event.start_mark
                plain = event.implicit[0] and not event.style
                node = Scalar(event.value, plain, mark.line + 1, mark.column + 1)
                self._begin(event, node)
                self._add(node)
                if event.anchor is not None:
                    self._anchors[event.anchor] = node, 1
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._open_collection(event, is_mapping=kind is yaml.MappingStartEvent)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self._close_collection()
            elif kind is yaml.AliasEvent:
                self._add_alias(event)
            elif kind is yaml.DocumentStartEvent:
                self._documents += 1
                if self._documents > 1 and not self._several:
                    raise self._refused(event, "The file has a second document.", "Make it a file of its own.")

    def _begin(self, event: Any, node: Node, size: int = 1) -> None:  # noqa: ANN401  # an event
        self._count += size
        if self._count > MAX_NODES:
            message = (
                f"The file has more than {MAX_NODES:,} nodes here, with aliases counted as often as they are used."
            )
            raise self._refused(event, message, "Split it, or use fewer aliases.")
        if getattr(event, "tag", None) is not None:
            fix = "Remove it; write a text in quotes."
            raise self._refused(event, f"The tag {clipped(event.tag)} is not read: definitions have no tags.", fix)
        if self.root is None:
            self.root = node

    def _add(self, node: Node) -> None:
        if not self._open:
            return
        top = self._open[-1]
        parent = top.node
        if type(parent) is Sequence:
            parent.items.append(node)
        elif top.key is None:
            self._add_key(top, node)
        else:
            if not top.skipped:
                parent.entries[top.key] = node  # type: ignore[union-attr]  # the other of the two collections
            top.key = None

    def _add_key(self, top: _Open, node: Node) -> None:
        parent = top.node
        assert type(parent) is Mapping  # noqa: S101  # sequences have no keys
        position = Position(self._file, node.line, node.column)
        if type(node) is not Scalar:
            raise _RefusedError(Fault(position, "A key has to be a text.", "Write the key in front of a colon."))
        top.key = node.text
        top.skipped = node.text in parent.keys
        if top.skipped:
            line, _ = parent.keys[node.text]
            message = f"The key {clipped(node.text)} is there twice; line {line} has it first."
            self.faults.append(Fault(position, message, "Remove one of them."))
        else:
            parent.keys[node.text] = node.line, node.column

    def _open_collection(self, event: Any, *, is_mapping: bool) -> None:  # noqa: ANN401  # an event
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        node: Mapping | Sequence = Mapping({}, {}, line, column) if is_mapping else Sequence([], line, column)
        start = self._count
        self._begin(event, node)
        if len(self._open) >= MAX_DEPTH:
            raise self._refused(event, f"The file nests deeper than {MAX_DEPTH} levels.", "No definition is so deep.")
        self._add(node)
        self._open.append(_Open(node, event.anchor, start))
        if event.anchor is not None:
            self._anchors[event.anchor] = None

    def _close_collection(self) -> None:
        closed = self._open.pop()
        if closed.anchor is not None:
            self._anchors[closed.anchor] = closed.node, self._count - closed.size

    def _add_alias(self, event: Any) -> None:  # noqa: ANN401  # an event
        if event.anchor not in self._anchors:
            raise self._refused(
                event, f"No anchor {clipped(event.anchor)} stands above this alias.", "Name one that does."
            )
        anchored = self._anchors[event.anchor]
        if anchored is None:
            raise self._refused(event, f"The alias {clipped(event.anchor)} stands within itself.", "Remove it.")
        node, size = anchored
        self._begin(event, node, size)
        self._add(node)

    def _refused(self, event: Any, message: str, fix: str) -> _RefusedError:  # noqa: ANN401  # an event
        mark = event.start_mark
        return _RefusedError(Fault(Position(self._file, mark.line + 1, mark.column + 1), message, fix))


def _character_fault(file: str, text: str, error: yaml.reader.ReaderError) -> Fault:
    before = text.encode("utf-8")[: error.position].decode("utf-8", "ignore")
    character = f"U+{error.character:04X}" if isinstance(error.character, int) else repr(error.character)
    message = f"The file has the character {character} here, which YAML does not allow."
    return Fault(_end(file, before), message, "Remove it, or write it escaped in double quotes.")


def _syntax_fault(file: str, text: str, error: yaml.MarkedYAMLError) -> Fault:
    if marker := _CONFLICT.search(text):
        begin = _end(file, text[: marker.start()])
        message = "A conflict of two versions of the file is left here, as git marks it."
        return Fault(begin, message, "Write what is meant, and remove the lines of <, = and >.")
    mark = error.problem_mark or error.context_mark
    position = _end(file, text) if mark is None else _within(file, text, mark.line, mark.column)
    if mark is not None and _character_at(text, position) == "\t":
        return Fault(position, "A tab stands where only spaces may indent.", "Replace the tab by spaces.")
    context = ""
    if error.context and error.context_mark:
        begin = _within(file, text, error.context_mark.line, error.context_mark.column)
        context = f" ({error.context}, line {begin.line})"
    return Fault(position, f"This is not YAML: {error.problem or 'it ends too early'}{context}.")


def _within(file: str, text: str, line: int, column: int) -> Position:
    """Return a position of libyaml, moved to the end of the text where it lies behind that."""
    lines = _lines(text)
    if line >= len(lines):
        return Position(file, len(lines), len(lines[-1]) + 1)
    return Position(file, line + 1, min(column, len(lines[line])) + 1)


def _character_at(text: str, position: Position) -> str:
    return _lines(text)[position.line - 1][position.column - 1 : position.column]


def _end(file: str, text: str) -> Position:
    """Return the position behind a text."""
    lines = _lines(text)
    return Position(file, len(lines), len(lines[-1]) + 1)


def _lines(text: str) -> list[str]:
    """Return the lines of a text as libyaml counts them; there is at least one."""
    for line_break in _LINE_BREAKS:
        text = text.replace(line_break, "\n")
    return text.split("\n")
