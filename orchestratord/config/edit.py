"""Writing a list of an endpoint back to its file: the lists of plugins that are united by name.

Everything is tried before anything is written: the text is spliced, read again and compared, and
the whole folder is validated with it in its place.
"""

from __future__ import annotations

import codecs
import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestratord.config import syntax
from orchestratord.config.document import Document, read_document
from orchestratord.config.edit_file import check_writable, replace, target
from orchestratord.config.edit_render import data_of, same
from orchestratord.config.edit_secrets import Held, secrets_in, shown, unmasked
from orchestratord.config.edit_splice import NoPlace, Splice
from orchestratord.config.folder import Files, read_folder
from orchestratord.config.merge import Merger
from orchestratord.config.positions import ListNode, MapNode, Node, is_null
from orchestratord.config.problems import Problems
from orchestratord.config.reader import Reader
from orchestratord.config.references import References
from orchestratord.endpoint import Setting
from orchestratord.errors import (
    ConfigError,
    InvalidParams,
    NotFound,
    NotWritable,
    Outdated,
    Problem,
    Unconditional,
)
from orchestratord.redact import Redactor
from orchestratord.registry import Registry


@dataclass(frozen=True, slots=True)
class Declaration:
    """A list of an endpoint as it stands on disk.

    Args:
        file: the endpoint's, relative to the config folder.
        items: what the file says, JSON-like: references as they stand there, secrets that are
            written out as `***`.
        inherited: what api.yaml and `defaults` say: each with `origin` (file:line), `overridden`
            (whether an item of the file has its name) and the `item`.
        etag: another one once the file or what it inherits has changed.
        reason: why the file cannot be written; empty where it can.
    """

    file: str
    items: tuple[dict[str, Any], ...]
    inherited: tuple[dict[str, Any], ...]
    etag: str
    reason: str = ""

    @property
    def writable(self) -> bool:
        """Whether the daemon can write the file."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class Edit:
    """What came of an edit.

    Args:
        declaration: as it now is; of a dry run, as it would be.
        diff: how the file changed, as a unified diff, without secrets; empty where it did not.
        problems: of a dry run, why it would be refused.
        written: whether the file was written.
        generation: the configuration's that has it; None for a dry run.
        refused: why the files were not taken up after it was written: others changed meanwhile.
    """

    declaration: Declaration
    diff: str
    problems: tuple[Problem, ...] = ()
    written: bool = False
    generation: int | None = None
    refused: tuple[Problem, ...] = ()


class Editor:
    """Reads and writes the lists of endpoints' files. Whoever edits takes turns.

    Args:
        folder: the config folder.
        registry: which keys there are.
        references: makes what references are resolved by, for names that are made from URLs.
        check: validates the folder with another content of one file; raises ConfigError.
        redactor: the one of the configuration in force.
    """

    def __init__(
        self,
        folder: Path,
        registry: Registry,
        references: Callable[[], References],
        check: Callable[[str, bytes], None],
        redactor: Callable[[], Redactor],
    ) -> None:
        self._folder = folder
        self._registry = registry
        self._references = references
        self._check = check
        self._redactor = redactor

    def declaration(self, endpoint_id: str, key: str) -> Declaration:
        """What the endpoint's file says under `key`.

        Raises:
            NotFound: no such endpoint, or no such key.
            ConfigError: its file cannot be read.
        """
        return self._state(endpoint_id, key).declaration()

    def edit(
        self, endpoint_id: str, key: str, value: Any, *, etag: str | None, dry_run: bool = False
    ) -> Edit:
        """Have the endpoint's file say `value` under `key`; everything else in it stays.

        Args:
            endpoint_id: `api/name`.
            key: of a setting that is united by name.
            value: the list; an empty one takes the key out. `***` in an item keeps what stands
                there in the one of the same name.
            etag: the value of If-Match.
            dry_run: try it, and write nothing.

        Raises:
            Unconditional, Outdated: no `etag`, or another one.
            NotWritable: the file cannot be written.
            InvalidParams: `value` is no such list.
            ConfigError: it would be refused; the places are those of the file as it would be.
            NotFound: no such endpoint, or no such key.
        """
        state = self._state(endpoint_id, key)
        if not etag:
            raise Unconditional("If-Match is required: the ETag of what was read before")
        if etag.strip() != "*" and state.etag not in [tag.strip() for tag in etag.split(",")]:
            raise Outdated(f"{state.file} has changed since it was read; read it again")
        new = state.wanted(value)
        if not dry_run:
            state.check_writable()
        problems: tuple[Problem, ...] = ()
        after = state
        try:
            after = state.changed(new)
            found = tuple(Held(state.merged).problems(after.merged, state.file))
            if found:
                raise ConfigError(found)
            self._check(state.file, after.content)
        except ConfigError as error:
            if not dry_run:
                raise
            problems = error.problems
        written = after.content != state.content and not dry_run
        if written and not replace(state.path(), after.content, state.content):
            raise Outdated(f"{state.file} has changed since it was read; read it again")
        return Edit(after.declaration(), state.diff(after), problems, written)

    def _state(self, endpoint_id: str, key: str) -> _State:
        setting = self._registry.settings.get(key)
        if setting is None or setting.merge != "by_name":
            raise NotFound(f"there is no list {key!r} that can be edited")
        files = read_folder(self._folder)
        file = files.endpoints.get(endpoint_id)
        if file is None:
            raise NotFound(f"there is no endpoint {endpoint_id!r}")
        if file not in files.contents:
            raise ConfigError([problem for problem in files.problems if problem.file == file])
        reader = Reader(self._references(), self._registry, Problems())
        merger = Merger(reader, self._registry.settings)
        daemon = _root(files, files.daemon)
        defaults = daemon.entries["defaults"][1] if "defaults" in daemon.entries else MapNode()
        inherited = MapNode()
        for node in (defaults, _root(files, files.apis[endpoint_id.partition("/")[0]])):
            if isinstance(node, MapNode):
                inherited = merger.merge(inherited, node.only({key}))
        return _State(
            self._folder, files, file, setting, merger, inherited, self._redactor(),
            files.contents[file],
        )  # fmt: skip


class _State:
    """One file with one content, and what its list is merged from. Raises ConfigError."""

    def __init__(
        self,
        folder: Path,
        files: Files,
        file: str,
        setting: Setting[Any],
        merger: Merger,
        inherited: MapNode,
        redactor: Redactor,
        content: bytes,
    ) -> None:
        self.folder = folder
        self.files = files
        self.file = file
        self.setting = setting
        self.key = setting.key
        self.merger = merger
        self.inherited = inherited
        self.content = content
        document = read_document(file, content)
        errors = [problem for problem in document.problems if problem.severity == "error"]
        if document.root is None or errors:
            raise ConfigError(errors or [Problem("cannot be read", file=file)])
        self.document: Document = document
        self.root: MapNode = document.root
        for node in (self.root, _list(inherited, self.key)):
            redactor = Redactor(secrets_in(node)).merged(redactor)
        self.redactor = redactor

    @property
    def own(self) -> Node | None:
        """What the file says under the key."""
        return self.root.entries[self.key][1] if self.key in self.root.entries else None

    @property
    def merged(self) -> Node | None:
        """The same with what it inherits."""
        return _list(self.merger.merge(self.inherited, self.root.only({self.key})), self.key)

    @property
    def named(self) -> list[Node]:
        """The items of the file, each with its name."""
        merged = self.merger.merge(MapNode(), self.root.only({self.key}))
        return _items(_list(merged, self.key))

    @property
    def etag(self) -> str:
        digest = hashlib.sha256(self.content)
        inherited = _list(self.inherited, self.key)
        digest.update(repr(None if inherited is None else data_of(inherited)).encode())
        return f'"{digest.hexdigest()[:32]}"'

    def path(self) -> Path:
        return target(self.folder, self.file, self.files.contents)

    def check_writable(self) -> None:
        check_writable(self.path())

    def declaration(self) -> Declaration:
        reason = ""
        try:
            self.check_writable()
        except NotWritable as error:
            reason = str(error)
        names = {_name(item) for item in self.named}
        found = _list(self.inherited, self.key)
        inherited = tuple(
            {
                "origin": f"{spot.file}:{spot.line}",
                "overridden": _name(item) in names,
                "item": shown(item, self.redactor),
            }
            for spot, item in (found.items if isinstance(found, ListNode) else ())
        )
        items = tuple(shown(item, self.redactor) for item in _items(self.own))
        return Declaration(self.file, items, inherited, self.etag, reason)

    def wanted(self, value: Any) -> list[Any]:
        """The list that somebody sent, with what is masked in it as it stands in the file."""
        if not isinstance(value, list):
            raise InvalidParams({self.key: "expected a list"})
        wrong = {
            f"{self.key}.{number}": "expected a JSON object"
            for number, item in enumerate(value)
            if not isinstance(item, Mapping)
        }
        if wrong:
            raise InvalidParams(wrong)
        before = dict(zip((_name(item) for item in self.named), _items(self.own), strict=True))
        new = []
        for number, item in enumerate(value):
            node = before.get(self._name_of(item))
            seen = None if node is None else shown(node, self.redactor)
            new.append(unmasked(item, seen, node, f"{self.key}.{number}", wrong))
        if wrong:
            raise InvalidParams(wrong)
        return new

    def _name_of(self, item: Mapping[str, Any]) -> str | None:
        name = item.get("name")
        if name is None and self.setting.name_of is not None:
            try:
                name = self.setting.name_of(item)
            except Exception:  # a plugin's function over what nobody has validated yet
                return None
        return str(name) if isinstance(name, str | int | float) else None

    def changed(self, new: list[Any]) -> _State:
        """The file with the list `new`, read again and compared. Raises ConfigError."""
        own = self.own
        if same(new, data_of(own) if own is not None and not is_null(own) else []):
            return self
        problems: list[Problem] = []
        text = syntax.decode(self.file, self.content, problems)
        if text is None:
            raise ConfigError(problems)
        mark = codecs.BOM_UTF8 if self.content.startswith(codecs.BOM_UTF8) else b""
        kept = self._kept(new)
        why = "the file would say something else than what was asked for"
        try:
            splice = Splice(text, self.key, own)
            for fine in (True, False):
                content = mark + splice.replaced(new, kept, fine=fine).encode()
                try:
                    after = _State(
                        self.folder, self.files, self.file, self.setting, self.merger,
                        self.inherited, self.redactor, content,
                    )  # fmt: skip
                except ConfigError as error:
                    why = f"the file could not be read afterwards: {error.problems[0]}"
                    continue
                if after._says(new) and self._rest() == after._rest():
                    return after
        except NoPlace as error:
            why = str(error)
        except UnicodeEncodeError:
            why = "it holds what is no character"
        spot = self.root.entries[self.key][0] if own is not None else self.document.spot
        message = f"{why}; edit the file by hand"
        raise ConfigError([Problem(message, spot.file, spot.line, spot.column, self.key)])

    def _kept(self, new: list[Any]) -> list[int | None]:
        """For each new item, which one of the file it is: the same, or one of the same name."""
        nodes = _items(self.own)
        names = [_name(item) for item in self.named]
        free = set(range(len(nodes)))
        kept: list[int | None] = [None] * len(new)
        for equal in (True, False):
            for number, item in enumerate(new):
                if kept[number] is not None:
                    continue
                for old in sorted(free):
                    if equal:
                        fits = same(data_of(nodes[old]), item)
                    else:
                        fits = names[old] is not None and names[old] == self._name_of(item)
                    if fits:
                        kept[number] = old
                        free.discard(old)
                        break
        return kept

    def _says(self, new: list[Any]) -> bool:
        own = self.own
        return same(new, [] if own is None else data_of(own))

    def _rest(self) -> list[Any]:
        """Everything but the list, in its order, as it is written."""
        return [
            (key, list(_written(node)))
            for key, (_, node) in self.root.entries.items()
            if key != self.key
        ]

    def diff(self, after: _State) -> str:
        """How the file changes, without secrets."""
        redactor = after.redactor.merged(self.redactor)
        before, later = (
            redactor.text(content.decode("utf-8", "replace")).splitlines(keepends=True)
            for content in (self.content, after.content)
        )
        lines = list(difflib.unified_diff(before, later, self.file, self.file))
        return "".join(
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
            for line in lines
        )


def _root(files: Files, file: str | None) -> MapNode:
    """The tree of a file; an empty one where there is none, or it cannot be read."""
    content = files.contents.get(file or "")
    return (read_document(file or "", content).root if content is not None else None) or MapNode()


def _list(node: MapNode, key: str) -> Node | None:
    return node.entries[key][1] if key in node.entries else None


def _items(node: Node | None) -> list[Node]:
    return [item for _, item in node.items] if isinstance(node, ListNode) else []


def _name(item: Node) -> str | None:
    if not isinstance(item, MapNode) or "name" not in item.entries:
        return None
    name = data_of(item.entries["name"][1])
    return str(name) if isinstance(name, str | int | float) else None


def _written(node: Node) -> Iterator[Any]:
    if isinstance(node, MapNode):
        for key, (_, child) in node.entries.items():
            yield "key", key
            yield from _written(child)
        yield "end"
    elif isinstance(node, ListNode):
        yield "list"
        for _, child in node.items:
            yield from _written(child)
        yield "end"
    else:
        yield type(node.value), node.text
