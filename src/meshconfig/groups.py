"""Groups: the dependencies of a file with those of the groups that it names, and groups that contain each other."""

from collections.abc import Iterable, Iterator, Mapping

from meshconfig.block import Block
from meshconfig.document import Document
from meshconfig.position import Fault, Position
from meshconfig.quotation import clipped
from wire.spelling import spelling_hint

MAX_DEPTH = 16
"""Levels of groups within groups."""


class Groups:
    """All groups of a repository."""

    def __init__(self, documents: Mapping[str, Document]) -> None:
        self._documents = documents

    def faults(self, documents: Iterable[Document]) -> Iterator[Fault]:
        """Yield the groups that files name and that do not exist, and those that contain themselves."""
        for document in documents:
            for name, position in _named(document):
                if name not in self._documents:
                    hint = spelling_hint(name, self._documents, otherwise=f"write groups/{name}.yaml.")
                    fix = f"{hint[:1].upper()}{hint[1:]}"
                    yield Fault(position, f"There is no group {clipped(name)}.", fix)
        yield from self._cycles()

    def dependencies(self, block: Block, faults: list[Fault]) -> tuple[list[tuple[Block, Position]], list[Document]]:
        """Return the dependencies of a file with those of its groups, and these groups.

        With each dependency comes the place where the file itself names it or its group. A group that the file has
        twice is a fault, since its dependencies would be there twice.
        """
        dependencies: list[tuple[Block, Position]] = []
        used: dict[str, Document] = {}
        self._collect(block, None, (), dependencies, used, faults)
        return dependencies, list(used.values())

    def _collect(
        self,
        block: Block,
        reference: Position | None,
        through: tuple[str, ...],
        dependencies: list[tuple[Block, Position]],
        used: dict[str, Document],
        faults: list[Fault],
    ) -> None:
        for each in block.blocks("dependencies"):
            if not each.writes("group"):
                dependencies.append((each, reference or each.position()))
                continue
            name, position = each.text("group"), reference or each.position("group")
            document = self._documents.get(name)
            if document is None or name in through:
                continue  # reported by faults()
            if name in used:
                message = f"The dependencies of the group {clipped(name)} are there twice."
                faults.append(Fault(position, message, "Name it once, also through other groups."))
            elif len(through) >= MAX_DEPTH:
                message = f"Groups stand within groups more than {MAX_DEPTH} levels deep."
                faults.append(Fault(position, message, "Name the inner groups here."))
            else:
                used[name] = document
                if document.block is not None:
                    self._collect(document.block, position, (*through, name), dependencies, used, faults)

    def _cycles(self) -> Iterator[Fault]:
        """Yield a fault for each name of a group that closes a cycle; without recursion, however long a chain is."""
        finished: set[str] = set()
        for start in sorted(self._documents):
            path = [start]
            branches = [iter(_named(self._documents[start]))]
            while path and start not in finished:
                name, position = next(branches[-1], ("", None))
                if position is None:
                    finished.add(path.pop())
                    branches.pop()
                elif name in path:
                    cycle = " → ".join((*path[path.index(name) :][-MAX_DEPTH:], name))
                    message = f"Groups contain each other: {cycle}."
                    yield Fault(position, message, "Take one of them out of the other.")
                elif name in self._documents and name not in finished:
                    path.append(name)
                    branches.append(iter(_named(self._documents[name])))


def _named(document: Document) -> Iterator[tuple[str, Position]]:
    """Yield the groups that a file names, and where."""
    for block in () if document.block is None else document.block.blocks("dependencies"):
        if block.text("group"):
            yield block.text("group"), block.position("group")
