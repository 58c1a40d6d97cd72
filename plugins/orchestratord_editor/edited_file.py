"""One endpoint's file with one content, and one list in it."""

from __future__ import annotations

import codecs
import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestratord import (
    ConfigError,
    EndpointFile,
    InvalidParams,
    NotFound,
    Problem,
    Redactor,
    nodes,
)
from orchestratord_editor.edit_secrets import (
    SecretsByOrigin,
    masked_item,
    masked_text,
    secrets_in,
    unmasked,
)
from orchestratord_editor.item_matching import ListChange, matched, same
from orchestratord_editor.splice import Splice
from orchestratord_editor.text_positions import NoPlace, extents_of


class EditedFile:
    """The file with one content.

    Args:
        file: as it stands on disk.
        key: the list's.
        content: what the file is taken to hold.

    Raises:
        NotFound: there is no such list.
        ConfigError: the content cannot be read.
    """

    def __init__(self, file: EndpointFile, key: str, content: bytes) -> None:
        if key not in file.settings:
            raise NotFound(f"there is no list {key!r} that can be edited")
        self.bytes = content
        self.file = file.name
        self._on_disk = file
        self._key = key
        self._inherited = file.inherited.child(key)
        self._root = file.tree(content)
        self.redactor = file.redactor
        for node in (self._root, self._inherited):
            self.redactor = Redactor(secrets_in(node)).merged(self.redactor)

    # -- what it says --------------------------------------------------------------------------

    @property
    def etag(self) -> str:
        """Another one for another content, also of what is inherited."""
        digest = hashlib.sha256(self.bytes)
        inherited = self._inherited
        digest.update(repr(None if inherited is None else nodes.data_of(inherited)).encode())
        return f'"{digest.hexdigest()[:32]}"'

    @property
    def items(self) -> tuple[Any, ...]:
        """What the file says, for people."""
        return tuple(masked_item(item, self.redactor) for item in nodes.items_of(self._own))

    @property
    def inherited(self) -> tuple[dict[str, Any], ...]:
        """What is inherited, for people: `origin`, `overridden` and `item` of each."""
        own = {nodes.name_of(item) for item in nodes.items_of(self._named)}
        inherited = self._inherited
        return tuple(
            {
                "origin": f"{spot.file}:{spot.line}",
                "overridden": nodes.name_of(item) in own,
                "item": masked_item(item, self.redactor),
            }
            for spot, item in (inherited.items if isinstance(inherited, nodes.ListNode) else ())
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each item of the file, also where it is derived."""
        return tuple(nodes.name_of(item) or "" for item in nodes.items_of(self._named))

    @property
    def secrets(self) -> SecretsByOrigin:
        """What is sent where; also what would be, were it not overridden."""
        return SecretsByOrigin(self._merged, self._inherited)

    def references(self, allowed: SecretsByOrigin) -> tuple[tuple[str, ...], ...]:
        """For each item, which of the references that are `allowed` it may hold."""
        merged = {nodes.name_of(item): item for item in nodes.items_of(self._merged)}
        own = nodes.items_of(self._named)
        return tuple(allowed.references(merged.get(nodes.name_of(item), item)) for item in own)

    def problems(self, allowed: SecretsByOrigin) -> Iterator[Problem]:
        """What would be sent where it was not sent before."""
        return allowed.problems(self._merged, self.file)

    # -- what it is to say ---------------------------------------------------------------------

    def wanted(self, value: Any) -> ListChange:
        """The list that was sent, with what is masked in it as it stands in the file.

        Raises InvalidParams where it is none.
        """
        if not isinstance(value, list):
            raise InvalidParams({self._key: "expected a list"})
        wrong = {
            f"{self._key}.{number}": "expected a JSON object"
            for number, item in enumerate(value)
            if not isinstance(item, Mapping)
        }
        if wrong:
            raise InvalidParams(wrong)
        seen, stood = self.items, nodes.items_of(self._own)
        kept = matched(seen, value, self._name_of)
        items = []
        for number, (item, old) in enumerate(zip(value, kept, strict=True)):
            shown, node = (None, None) if old is None else (seen[old], stood[old])
            items.append(unmasked(item, shown, node, f"{self._key}.{number}", wrong))
        if wrong:
            raise InvalidParams(wrong)
        return ListChange(items, stood, kept)

    def _name_of(self, item: Any) -> str | None:
        """The name of an item as people see it."""
        name = item.get("name") if isinstance(item, Mapping) else None
        derived = self._on_disk.settings[self._key].name_of
        if name is None and derived is not None:
            try:
                name = derived(item)
            except Exception:  # a plugin's function over what is not validated yet
                return None
        return str(name) if isinstance(name, str | int | float) else None

    def changed(self, wanted: ListChange) -> EditedFile:
        """The file with the list that is wanted, read again and compared. Raises ConfigError."""
        if self._says(wanted.new):
            return self
        mark = codecs.BOM_UTF8 if self.bytes.startswith(codecs.BOM_UTF8) else b""
        text, most = self.bytes.removeprefix(mark).decode(), self._on_disk.MAX_BYTES
        why = "the file would differ from the request"
        try:
            for proposal in Splice(text, self._key, wanted).proposals():
                content = mark + proposal.encode()
                if len(content) > most:
                    why = f"the file would be larger than {most} bytes"
                    continue
                try:
                    after = EditedFile(self._on_disk, self._key, content)
                except ConfigError as error:
                    why = f"the file could not be read afterwards: {error.problems[0]}"
                    continue
                if after._says(wanted.new) and self._rest() == after._rest():
                    return after
        except NoPlace as error:
            why = str(error)
        except UnicodeEncodeError:
            why = "it holds an invalid character"
        entry = self._root.entries.get(self._key)
        spot = entry[0] if entry else nodes.Spot(self.file, 1, 1, self._key)
        message = self.redactor.text(f"{why}; edit the file manually")
        raise ConfigError([spot.problem(message)])

    def diff(self, after: EditedFile) -> str:
        """How the file changes, as a unified diff, without secrets."""
        redactor = after.redactor.merged(self.redactor)
        before, later = (content._for_people(redactor) for content in (self, after))
        lines = list(difflib.unified_diff(before, later, self.file, self.file))
        return "".join(
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
            for line in lines
        )

    # -- within --------------------------------------------------------------------------------

    def _for_people(self, redactor: Redactor) -> list[str]:
        text = self.bytes.decode().removeprefix("\ufeff")
        try:
            extent = extents_of(text)[0]
        except NoPlace:
            extent = None
        return masked_text(text, self._root, extent, redactor).splitlines(keepends=True)

    @property
    def _own(self) -> nodes.Node | None:
        """What the file says under the key."""
        return self._root.child(self._key)

    @property
    def _merged(self) -> nodes.Node | None:
        """That, merged with what it inherits."""
        return self._on_disk.merged(self._root.only({self._key})).child(self._key)

    @property
    def _named(self) -> nodes.Node | None:
        """The list of the file, each item with its name."""
        own = self._root.only({self._key})
        return self._on_disk.merged(own, inherits=False).child(self._key)

    def _says(self, items: Sequence[Any]) -> bool:
        own = self._own
        return same(items, [] if own is None or nodes.is_null(own) else nodes.data_of(own))

    def _rest(self) -> list[Any]:
        """Everything but the list, in its order, as it is written."""
        return [
            (key, list(_written(node)))
            for key, (_, node) in self._root.entries.items()
            if key != self._key
        ]


def _written(node: nodes.Node) -> Iterator[Any]:
    if isinstance(node, nodes.MapNode):
        for key, (_, child) in node.entries.items():
            yield "key", key
            yield from _written(child)
        yield "end"
    elif isinstance(node, nodes.ListNode):
        yield "list"
        for _, child in node.items:
            yield from _written(child)
        yield "end"
    else:
        yield type(node.value), node.text
