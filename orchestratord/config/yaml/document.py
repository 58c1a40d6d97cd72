"""One file's text, read into a tree of nodes that know where they stand.

PyYAML's event stream is used, and nothing of it above that: its constructors speak YAML 1.1, in
which `no` is false and `12:30` is 750. The tree is built from the events without recursion, so a
depth is refused before it costs anything, and an alias is one shared node whose repeats are
counted before anything walks them.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from orchestratord.config.folder import MAX_BYTES, Files
from orchestratord.config.yaml import syntax
from orchestratord.config.yaml.nodes import ListNode, MapNode, Node, Scalar, Spot
from orchestratord.config.yaml.scalars import resolve
from orchestratord.config.yaml.syntax import Strict
from orchestratord.errors import Problem

MAX_DEPTH = 20
MAX_REPEATED = MAX_BYTES
"""Characters and values that the aliases of one file may repeat."""
MAX_VALUES = 20_000
"""Keys and values of one file; what people write has some dozens."""
MAX_PROBLEMS = 50
"""A file with more is not read further."""

_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels; flatten it"
_STR_TAGS = ("tag:yaml.org,2002:str", "!")


@dataclass(slots=True, eq=False)
class YamlDocument:
    """What one file holds: its tree, or None where it cannot be read at all, and its problems."""

    file: str
    root: MapNode | None
    problems: list[Problem]

    @property
    def spot(self) -> Spot:
        """Where the file begins."""
        return Spot(self.file, 1, 1, "")


def read_document(file: str, content: bytes, *, loader: Any = None) -> YamlDocument:
    """Read the bytes of `file`. Never raises for what stands in them.

    Args:
        file: the name for problems; what ends in `.json` is held to the rules of JSON.
        content: the bytes, at most 1 MiB.
        loader: one of PyYAML's loaders; the default is libyaml's where PyYAML was built with it.
    """
    problems: list[Problem] = []
    building = _built(file, content, problems, loader or LOADER)
    return YamlDocument(file, building.root() if building is not None else None, problems)


def root_of(files: Files, file: str | None) -> MapNode:
    """The tree of one of the folder's files; an empty one where there is none that can be read."""
    content = files.contents.get(file or "")
    root = None if content is None else read_document(file or "", content).root
    return root or MapNode()


def _built(file: str, content: bytes, problems: list[Problem], loader: Any) -> _Building | None:
    """The tree of a file; None where it is not worth looking at, which has problems."""
    text = syntax.decode(file, content, problems)
    if text is not None and (conflict := syntax.merge_conflict(file, text)) is not None:
        problems.append(conflict)
        return None
    if text is not None and file.endswith(".json"):
        text = syntax.check(file, text, problems)
    if text is None:
        return None
    if text and text[-1] not in BREAKS:
        text += "\n"  # a block text that ends with the file would lose its last line break
    building = _Building(file, text, problems)
    try:
        return building if building.run(loader(text)) else None
    except yaml.MarkedYAMLError as error:
        found = syntax.explain(file, text, error)
        if not (building.template_line and found.line == building.template_line):
            problems.append(found)
    except yaml.YAMLError as error:
        problems.append(Problem(f"cannot be read as YAML: {error}", file=file))
    return None


LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
BREAKS = "\n\r\x85\u2028\u2029"
_YAML = (1, 2)
_QUOTED = frozenset("'\"|>")
_LETTERS = frozenset(string.ascii_letters)
"""What begins with one of them is no number, which might be none that can be used."""


class _Frame:
    """A collection that is not closed yet."""

    __slots__ = tuple(
        "anchor begin column entries flow height key name node path size start template "
        "waiting".split()
    )

    def __init__(
        self, node: MapNode | ListNode, path: str, event: Any, above: _Frame | None
    ) -> None:
        self.node = node
        self.entries = node.entries if isinstance(node, MapNode) else None
        """None for a list."""
        self.path = path
        self.anchor: str | None = event.anchor
        self.flow: bool = event.flow_style
        self.start: int = event.start_mark.index
        self.template = False
        """It is a `{{ … }}` that has no quotes around it."""
        self.begin: int | None = None
        """Where brackets begin that stand in no others."""
        self.column: int = -1 if above is None else above.column
        """Of the keys or dashes; in brackets that of the block around them, -1 for none."""
        if not self.flow:
            if self.entries is None and event.anchor is None and event.tag is None:
                self.column = event.start_mark.column
        elif above is None or not above.flow:
            self.begin = event.start_mark.index
        self.size = 1
        self.height = 1
        self.waiting = False
        """For a mapping: a key stands here, and its value comes next."""
        self.name = ""
        self.key: Spot | None = None
        """That key, and its place; None where it cannot be used."""


class _Building:
    """The tree while the events come in."""

    def __init__(self, file: str, text: str, problems: list[Problem]) -> None:
        self.file = file
        self.text = text
        self.problems = problems
        self.frames: list[_Frame] = []
        self.top: Node | None = None
        self.top_spot = Spot(file, 1, 1, "")
        self.documents = 0
        self.anchors: dict[str, tuple[Node, int, int] | None] = {}
        """Anchor → its node, size and height; None while it is open."""
        self.repeated = 0
        self.template_line = 0
        """The last one with a template that has no quotes; what else is wrong there follows."""

    def root(self) -> MapNode | None:
        """The mapping that the file is; an empty file is an empty one."""
        top = self.top
        if isinstance(top, MapNode):
            return top
        if top is None or (isinstance(top, Scalar) and top.value is None):
            return MapNode()
        self._problem(self.top_spot, "expected keys with values, such as `timeout: 30s`")
        return None

    def run(self, parser: Any) -> bool:
        """Take all events of one of PyYAML's parsers; False where a file is not worth finishing."""
        next_event, problems = parser.get_event, self.problems
        strict = Strict.of(self.text)
        left = MAX_VALUES
        try:
            while (event := next_event()) is not None:
                if strict is not None and (problem := strict.problem_of(event)) is not None:
                    self._problem(self._value_spot(self._spot(event)), problem)
                handler = _HANDLERS.get(type(event))
                if handler is not None and not handler(self, event):
                    return False
                left -= 1
                if left < 0:
                    message = (
                        f"more than {MAX_VALUES:,} keys and values stand in this file; split it"
                    )
                    self._problem(self._value_spot(self._spot(event)), message)
                    return False
                if len(problems) > MAX_PROBLEMS:
                    return False
        finally:
            parser.dispose()
        return True

    # -- events ----------------------------------------------------------------------------

    def _document(self, event: yaml.DocumentStartEvent) -> bool:
        self.documents += 1
        message = "a second document begins here; a file holds one"
        if event.tags or (event.version or _YAML) != _YAML:
            message = "directives (%) are not read, the file is YAML 1.2; leave them out"
        elif self.documents == 1:
            return True
        self._problem(self._spot(event), message)
        return False

    def _scalar(self, event: yaml.ScalarEvent) -> bool:
        # Nine of ten events come here, so that spots are made only where they are needed.
        text = event.value
        frame = self.frames[-1] if self.frames else None
        if not event.style and event.tag is None and event.anchor is None and frame is not None:
            entries = frame.entries  # most are plain, and stand in a mapping
            if entries is not None and not frame.waiting:
                self._key(frame, event, event.implicit[0])
                return True
            if entries is not None and frame.key is not None and text[:1] in _LETTERS:
                frame.waiting = False
                entries[frame.name] = (frame.key, Scalar(resolve(text), text))
                frame.size += 1 + len(text)
                return True
        plain = event.implicit[0] and event.tag is None and event.style not in _QUOTED
        if event.style in _QUOTED and (frame is None or not frame.flow):
            assert event.start_mark is not None
            assert event.end_mark is not None
            start, end = event.start_mark.index, event.end_mark.index
            above = -1 if frame is None else frame.column
            if event.style in ("'", '"'):
                self._indented(syntax.outdented(self.text, start, end, above))
            else:
                self._indented(syntax.misjudged(self.text, start, above))
        if event.tag is not None and event.tag not in _STR_TAGS:
            self._tag(self._spot(event), event.tag)
        if frame is not None and frame.entries is not None and not frame.waiting:
            self._key(frame, event, plain)
            return True
        try:
            # Where a tag has swallowed the text, nothing more is wrong with what is left.
            swallowed = event.tag is not None and not text and event.tag not in _STR_TAGS
            node = Scalar(None if swallowed else resolve(text) if plain else text, text)
        except ValueError as error:
            self._problem(self._value_spot(self._spot(event)), str(error))
            node = Scalar(text, text)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, 1 + len(text), 0)
        if frame is not None and frame.entries is not None:
            frame.waiting = False
            if frame.key is not None:
                frame.entries[frame.name] = (frame.key, node)
        else:
            self._place(self._spot(event), node)
        if frame is not None:
            frame.size += 1 + len(text)
        return True

    def _key(self, frame: _Frame, event: yaml.ScalarEvent, plain: bool) -> None:
        assert frame.entries is not None
        text, mark = event.value, event.start_mark
        assert mark is not None
        if not frame.flow and not frame.entries:
            frame.column = mark.column
        frame.waiting = True
        frame.name = text
        frame.key = spot = Spot(self.file, mark.line + 1, mark.column + 1, _path(frame.path, text))
        frame.size += len(text)
        if text in frame.entries:
            first = frame.entries[text][0].line
            self._problem(spot, f"stands here twice, first in line {first}; keep one of them")
            frame.key = None
        elif not text:
            self._problem(self._spot(event), "a key is missing before the ':'")
            frame.key = None
        elif plain and text == "<<":
            self._problem(
                self._spot(event),
                "merge keys (<<) are not part of YAML 1.2; write the keys out, or share them in "
                "api.yaml or defaults",
            )
            frame.key = None

    def _open(self, event: yaml.CollectionStartEvent) -> bool:
        node = MapNode() if isinstance(event, yaml.MappingStartEvent) else ListNode()
        spot = self._spot(event)
        if len(self.frames) >= MAX_DEPTH:
            self._problem(self._value_spot(spot), _TOO_DEEP)
            return False
        if event.tag is not None:
            self._tag(spot, event.tag)
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if self._is_key():
            self._complex_key(spot)
            path = spot.key
        else:
            path = self._place(spot, node).key
        above = self.frames[-1] if self.frames else None
        self.frames.append(_Frame(node, path, event, above))
        return True

    def _close(self, event: yaml.CollectionEndEvent) -> bool:
        frame = self.frames.pop()
        if frame.begin is not None:
            assert event.end_mark is not None
            start, end = frame.begin, event.end_mark.index
            self._indented(syntax.outdented(self.text, start, end, frame.column, "]}#"))
        if frame.anchor is not None:
            self.anchors[frame.anchor] = (frame.node, frame.size, frame.height)
        if frame.template:
            assert event.end_mark is not None
            self._as_text(self.text[frame.start : event.end_mark.index])
        self._grow(frame.size, frame.height)
        return True

    def _as_text(self, text: str) -> None:
        """Take the last value for a text, so that nothing else is found to be wrong with it."""
        above = self.frames[-1] if self.frames else None
        if above is not None and isinstance(above.node, ListNode):
            above.node.items[-1] = (above.node.items[-1][0], Scalar(text, text))
        elif above is not None and above.entries is not None and above.key is not None:
            above.entries[above.name] = (above.key, Scalar(text, text))

    def _alias(self, event: yaml.AliasEvent) -> bool:
        spot = self._spot(event)
        name = event.anchor
        if self._is_key():
            self._complex_key(spot)
            self._grow(1, 0)
            return True
        if name not in self.anchors:
            self._problem(
                self._value_spot(spot),
                "there is no such anchor above; a text that begins with * needs quotes",
            )
            node, size, height = Scalar(None, f"*{name}"), 1, 0
        elif (found := self.anchors[name]) is None:
            self._problem(self._value_spot(spot), "the anchor that is meant contains itself")
            return False
        else:
            node, size, height = found  # type: ignore[assignment]
        self.repeated += size
        if self.repeated > MAX_REPEATED:
            self._problem(
                self._value_spot(spot),
                "the aliases repeat too much; write it out, or share it in api.yaml or defaults",
            )
            return False
        if len(self.frames) + height > MAX_DEPTH:
            self._problem(self._value_spot(spot), _TOO_DEEP)
            return False
        self._place(spot, node)
        self._grow(size, height)
        return True

    # -- the tree --------------------------------------------------------------------------

    def _is_key(self) -> bool:
        frame = self.frames[-1] if self.frames else None
        return frame is not None and frame.entries is not None and not frame.waiting

    def _place(self, spot: Spot, node: Node) -> Spot:
        """Put a value where it belongs; the spot that it is known by."""
        if not self.frames:
            self.top, self.top_spot = node, spot
            return spot
        frame = self.frames[-1]
        if frame.entries is not None:
            frame.waiting = False
            if frame.key is None:
                return spot
            frame.entries[frame.name] = (frame.key, node)
            return frame.key
        assert isinstance(frame.node, ListNode)
        item = spot.below(len(frame.node.items))
        frame.node.items.append((item, node))
        return item

    def _grow(self, size: int, height: int) -> None:
        if self.frames:
            frame = self.frames[-1]
            frame.size += size
            frame.height = max(frame.height, height + 1)

    def _complex_key(self, spot: Spot) -> None:
        """A collection or an alias stands where a key should; its value is read and dropped."""
        frame = self.frames[-1]
        frame.waiting = True
        frame.key = None
        line = self.text.splitlines()[spot.line - 1]
        if line[: spot.column].endswith("{{"):
            frame.template = True
            self.template_line = spot.line
            message = 'a template needs quotes around the whole value: "{{ … }}"'
        else:
            message = "a key is a text; put quotes around it"
        self._problem(spot, message)

    def _value_spot(self, spot: Spot) -> Spot:
        """Where a person is sent for the value at `spot`: its key, or itself in a list."""
        if not self.frames:
            return spot
        frame = self.frames[-1]
        if isinstance(frame.node, MapNode):
            return frame.key if frame.waiting and frame.key else spot
        return spot.below(len(frame.node.items))

    def _spot(self, event: yaml.Event) -> Spot:
        """Where an event begins, with the path of the collection that it stands in."""
        mark = event.start_mark
        assert mark is not None
        path = self.frames[-1].path if self.frames else ""
        return Spot(self.file, mark.line + 1, mark.column + 1, path)

    def _tag(self, spot: Spot, tag: str) -> None:
        # Only a tag of YAML's own is named: another one may be a secret that begins with !.
        own = tag.startswith("tag:yaml.org,2002:")
        name = tag.replace("tag:yaml.org,2002:", "the tag !!", 1) if own else "a tag (!)"
        message = f"{name} is not read; leave it out, or quote the text"
        self._problem(self._value_spot(spot), message)

    def _indented(self, problem: syntax.Finding | None) -> None:
        if problem is not None:
            self.problems.append(syntax.at(self.file, self.text, *problem))

    def _problem(self, spot: Spot, message: str) -> None:
        self.problems.append(spot.problem(message))


_HANDLERS: dict[type, Callable[[_Building, Any], bool]] = {
    yaml.ScalarEvent: _Building._scalar,
    yaml.MappingStartEvent: _Building._open,
    yaml.SequenceStartEvent: _Building._open,
    yaml.MappingEndEvent: _Building._close,
    yaml.SequenceEndEvent: _Building._close,
    yaml.AliasEvent: _Building._alias,
    yaml.DocumentStartEvent: _Building._document,
}


@lru_cache(maxsize=4096)
def _path(above: str, key: str) -> str:
    """The path of a key. Many files hold the same ones, and share these texts."""
    return f"{above}.{_key_text(key)}" if above else _key_text(key)


def _key_text(key: str) -> str:
    """A key for a message of one line."""
    text = key if key.isprintable() else key.encode("unicode_escape").decode()
    return text if len(text) <= 80 else text[:79] + "…"
