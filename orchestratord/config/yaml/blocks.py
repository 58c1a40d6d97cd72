"""Top-level keys that files repeat to the letter, each parsed once.

A file is cut into blocks where a line begins with a key. What was made of a block serves again in
every other file that has it, and the parser is given what is left. The places of such a block are
those of the file that it was parsed in: a warning is moved to where the block stands, and a file
with an error, whose text may name a line, is read again without them.

A block stands for itself: no value of YAML's block style goes on in a line that begins with a key,
and for quotes and brackets that would do so `document` has a problem, upon which the file is read
as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

from orchestratord.config.yaml.document import YamlDocument, read_document
from orchestratord.config.yaml.nodes import MapNode, Node, Spot, items_of, mapping_of
from orchestratord.errors import Problem

MOST_CHARACTERS = 10_000
"""Of a file that is cut: so small a one has no more values than it may have."""
MOST_BLOCKS = 4_000
"""That are known at once, as they are freed at once, while nothing else runs."""

_BEGIN = re.compile(r"^([A-Za-z_][A-Za-z0-9_-]*):(?=[ \n])", re.MULTILINE)
_NOTHING = re.compile(r"(?:[ ]*(?:#[^\n]*)?\n)*")
"""What may stand before the first key: blank lines and comments."""
_WHOLE = ("\r", "\x85", "\u2028", "\u2029", "|+", ">+", "\n...", "\n---", "\n%")
"""What is in no file that is cut: other line ends, a text that takes the empty lines behind it, and
the end of a document."""
_KEEPING = re.compile(r"[|>][0-9]\+")
"""The second of these with an indentation, which is rare."""
_OWN = re.compile("[&*]")
"""In a block that may depend on others, or change them: anchors and aliases."""


@dataclass(slots=True)
class CutDocument:
    """A document, and where it comes from.

    Args:
        document: as `read_document` gives it, but for the places of known blocks.
        new: the texts of the blocks that were parsed now, by their keys.
        known: the file that each of the others was parsed in, by their keys, and how many lines
            further on the block stands here.
    """

    document: YamlDocument
    new: dict[str, str] = field(default_factory=dict)
    known: dict[str, tuple[str, int]] = field(default_factory=dict)

    def placed(self, problem: Problem) -> Problem:
        """A problem of this file with its place here."""
        file, further = self.known.get(problem.key.partition(".")[0], ("", 0))
        if problem.file != file or problem.line is None:
            return problem  # it is in what was parsed now, or is inherited
        return replace(problem, file=self.document.file, line=problem.line + further)


class KnownBlocks:
    """The blocks of the folder. One that was seen twice is known."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        """Hashes of texts."""
        self._known: dict[str, tuple[Spot, Node]] = {}
        """The entry that a block's text is."""
        self._shared: dict[int, Node] = {}
        """By identity."""

    def close(self) -> None:
        """A reading is over: what is shared from now on is what the blocks hold. Where these are
        too many, the folder has changed a lot since they were seen."""
        if len(self._known) == MOST_BLOCKS or len(self._seen) > 50 * MOST_BLOCKS:
            self._known, self._seen = {}, set()
        self._shared = {}
        for _, node in self._known.values():
            self.share(node)

    def shares(self, node: Node | None) -> bool:
        """Whether a node is one object for several files, as long as the folder is read; what is
        made of it can be found by its identity."""
        return id(node) in self._shared

    def share(self, node: Node) -> None:
        """Have one node more be such, and the items of a list."""
        for one in (node, *items_of(node)):
            self._shared[id(one)] = one

    def read(self, file: str, content: bytes) -> CutDocument:
        """The document of a file. The arguments are those of `read_document`."""
        blocks = None if file.endswith(".json") else _cut(content)
        if blocks is None:
            return CutDocument(read_document(file, content))
        before, texts = blocks
        known = {key: found for key, text in texts.items() if (found := self._known.get(text))}
        new = {key: text for key, text in texts.items() if key not in known}
        if known:
            # Empty lines in their place, so that the others stay where they are.
            rest = "".join(
                text if key in new else "\n" * text.count("\n") for key, text in texts.items()
            )
            parsed = read_document(file, (before + rest).encode()) if new else None
            own = parsed.root if parsed is not None else MapNode()
            if not (parsed and parsed.problems) and own is not None and [*own.entries] == [*new]:
                entries = {key: known[key] if key in known else own.entries[key] for key in texts}
                places = _places(before, texts, known)
                return CutDocument(YamlDocument(file, MapNode(entries), []), new, places)
        document = read_document(file, content)
        root = document.root
        good = root is not None and not document.problems and [*root.entries] == [*texts]
        return CutDocument(document, texts if good else {})

    def learn(self, found: CutDocument, but: Container[str]) -> None:
        """Know the blocks of a document that were seen before, `but` for those of some keys."""
        entries = mapping_of(found.document.root).entries
        for key, text in found.new.items():
            seen = hash(text)
            if seen not in self._seen:
                self._seen.add(seen)
            elif key not in but and len(self._known) < MOST_BLOCKS and not _OWN.search(text):
                self._known[text] = entries[key]
                self.share(entries[key][1])


def _places(
    before: str, texts: Mapping[str, str], known: Mapping[str, tuple[Spot, Node]]
) -> dict[str, tuple[str, int]]:
    """See `CutDocument.known`."""
    places, line = {}, before.count("\n") + 1
    for key, text in texts.items():
        if key in known:
            spot, _ = known[key]
            places[key] = spot.file, line - spot.line
        line += text.count("\n")
    return places


def _cut(content: bytes) -> tuple[str, dict[str, str]] | None:
    """What stands before the first key, and the block of each; None for a file that is read as a
    whole."""
    if len(content) > MOST_CHARACTERS or not content.endswith(b"\n"):
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    begins = [*_BEGIN.finditer(text)]
    if not begins or any(sign in text for sign in _WHOLE):
        return None
    start = begins[0].start()
    if (start and not _NOTHING.fullmatch(text, 0, start)) or (
        "+" in text and _KEEPING.search(text)
    ):
        return None
    ends = [*(begin.start() for begin in begins[1:]), len(text)]
    blocks = {begin[1]: text[begin.start() : end] for begin, end in zip(begins, ends, strict=True)}
    # A key that stands twice is a problem.
    return (text[:start], blocks) if len(blocks) == len(begins) else None
