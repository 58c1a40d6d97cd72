"""One endpoint's file with one content, and one list in it."""

from __future__ import annotations

import codecs
import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestratord.config.edit.edit_secrets import (
    SecretsByOrigin,
    masked_item,
    masked_text,
    secrets_in,
    unmasked,
)
from orchestratord.config.edit.item_matching import ListChange, matched, same
from orchestratord.config.edit.splice import Splice
from orchestratord.config.edit.text_positions import NoPlace, extents_of
from orchestratord.config.folder import MAX_BYTES
from orchestratord.config.inherit import Merger
from orchestratord.config.yaml import syntax
from orchestratord.config.yaml.document import read_document
from orchestratord.config.yaml.nodes import (
    ListNode,
    MapNode,
    Node,
    Spot,
    data_of,
    is_null,
    items_of,
    name_of,
)
from orchestratord.errors import ConfigError, InvalidParams, Problem
from orchestratord.model.endpoint import Setting
from orchestratord.values.redact import Redactor


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a list is read and merged with.

    Args:
        file: the endpoint's, relative to the config folder.
        setting: whose list it is.
        merger: unites lists by name.
        inherited: what api.yaml and `defaults` say, merged.
        redactor: the one of the configuration in force.
    """

    file: str
    setting: Setting[Any]
    merger: Merger
    inherited: MapNode
    redactor: Redactor


class EditedFile:
    """The file with one content. Raises ConfigError where that cannot be read."""

    def __init__(self, surroundings: Surroundings, content: bytes) -> None:
        self.bytes = content
        self.file = surroundings.file
        self._surroundings = surroundings
        self._setting = surroundings.setting
        self._key = surroundings.setting.key
        self._merger = surroundings.merger
        self._inherited = surroundings.inherited.child(self._key)
        document = read_document(self.file, content)
        errors = [problem for problem in document.problems if problem.severity == "error"]
        if document.root is None or errors:
            raise ConfigError(errors or [Problem("cannot be read", file=self.file)])
        self._root: MapNode = document.root
        self.redactor = surroundings.redactor
        for node in (self._root, self._inherited):
            self.redactor = Redactor(secrets_in(node)).merged(self.redactor)

    # -- what it says --------------------------------------------------------------------------

    @property
    def etag(self) -> str:
        """Another one for another content, also of what is inherited."""
        digest = hashlib.sha256(self.bytes)
        inherited = self._inherited
        digest.update(repr(None if inherited is None else data_of(inherited)).encode())
        return f'"{digest.hexdigest()[:32]}"'

    @property
    def items(self) -> tuple[Any, ...]:
        """What the file says, for people."""
        return tuple(masked_item(item, self.redactor) for item in items_of(self._own))

    @property
    def inherited(self) -> tuple[dict[str, Any], ...]:
        """What is inherited, for people: `origin`, `overridden` and `item` of each."""
        own = {name_of(item) for item in items_of(self._named)}
        inherited = self._inherited
        return tuple(
            {
                "origin": f"{spot.file}:{spot.line}",
                "overridden": name_of(item) in own,
                "item": masked_item(item, self.redactor),
            }
            for spot, item in (inherited.items if isinstance(inherited, ListNode) else ())
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each item of the file, also where it is derived."""
        return tuple(name_of(item) or "" for item in items_of(self._named))

    @property
    def secrets(self) -> SecretsByOrigin:
        """What is sent where; also what would be, were it not overridden."""
        return SecretsByOrigin(self._merged, self._inherited)

    def references(self, allowed: SecretsByOrigin) -> tuple[tuple[str, ...], ...]:
        """For each item, which of the references that are `allowed` it may hold."""
        merged = {name_of(item): item for item in items_of(self._merged)}
        own = items_of(self._named)
        return tuple(allowed.references(merged.get(name_of(item), item)) for item in own)

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
        seen, nodes = self.items, items_of(self._own)
        kept = matched(seen, value, self._name_of)
        items = []
        for number, (item, old) in enumerate(zip(value, kept, strict=True)):
            shown, node = (None, None) if old is None else (seen[old], nodes[old])
            items.append(unmasked(item, shown, node, f"{self._key}.{number}", wrong))
        if wrong:
            raise InvalidParams(wrong)
        return ListChange(items, nodes, kept)

    def _name_of(self, item: Any) -> str | None:
        """The name of an item as people see it."""
        name = item.get("name") if isinstance(item, Mapping) else None
        if name is None and self._setting.name_of is not None:
            try:
                name = self._setting.name_of(item)
            except Exception:  # a plugin's function over what is not validated yet
                return None
        return str(name) if isinstance(name, str | int | float) else None

    def changed(self, wanted: ListChange) -> EditedFile:
        """The file with the list that is wanted, read again and compared. Raises ConfigError."""
        if self._says(wanted.new):
            return self
        problems: list[Problem] = []
        text = syntax.decode(self.file, self.bytes, problems)
        if text is None:
            raise ConfigError(problems)
        mark = codecs.BOM_UTF8 if self.bytes.startswith(codecs.BOM_UTF8) else b""
        why = "the file would say something else than what was asked for"
        try:
            for proposal in Splice(text, self._key, wanted).proposals():
                content = mark + proposal.encode()
                if len(content) > MAX_BYTES:
                    why = f"the file would be larger than {MAX_BYTES} bytes"
                    continue
                try:
                    after = EditedFile(self._surroundings, content)
                except ConfigError as error:
                    why = f"the file could not be read afterwards: {error.problems[0]}"
                    continue
                if after._says(wanted.new) and self._rest() == after._rest():
                    return after
        except NoPlace as error:
            why = str(error)
        except UnicodeEncodeError:
            why = "it holds what is no character"
        entry = self._root.entries.get(self._key)
        spot = entry[0] if entry else Spot(self.file, 1, 1, self._key)
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
    def _own(self) -> Node | None:
        """What the file says under the key."""
        return self._root.child(self._key)

    @property
    def _merged(self) -> Node | None:
        """That, merged with what it inherits."""
        inherited, own = self._surroundings.inherited, self._root.only({self._key})
        return self._merger.merge(inherited, own).child(self._key)

    @property
    def _named(self) -> Node | None:
        """The list of the file, each item with its name."""
        own = self._root.only({self._key})
        return self._merger.merge(MapNode(), own).child(self._key)

    def _says(self, items: Sequence[Any]) -> bool:
        own = self._own
        return same(items, [] if own is None or is_null(own) else data_of(own))

    def _rest(self) -> list[Any]:
        """Everything but the list, in its order, as it is written."""
        return [
            (key, list(_written(node)))
            for key, (_, node) in self._root.entries.items()
            if key != self._key
        ]


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
