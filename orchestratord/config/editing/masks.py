"""What people see of secrets that are written out, and what it means when they send it back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestratord.config.editing.held import is_secret, is_written_out, leaf_of, leaves
from orchestratord.config.editing.marks import Extent
from orchestratord.config.editing.matching import data_of, items_of
from orchestratord.config.positions import ListNode, MapNode, Node, Scalar
from orchestratord.redact import MASK, Redactor


def shown(node: Node, redactor: Redactor) -> Any:
    """An item for people: references as they stand in the file, secrets written out masked."""
    return _shown(node, redactor, "", secret=False, above="")


def _shown(node: Node, redactor: Redactor, key: str, *, secret: bool, above: str) -> Any:
    if isinstance(node, MapNode):
        return {
            name: _shown(child, redactor, name, secret=secret or is_secret(name, key), above=key)
            for name, (_, child) in node.entries.items()
        }
    if isinstance(node, ListNode):
        return [_shown(child, redactor, key, secret=secret, above=above) for _, child in node.items]
    leaf = leaf_of(node, key, secret=secret, above=above)
    if leaf is not None and leaf.secret and is_written_out(leaf.text):
        return MASK
    value = data_of(node)
    return redactor.text(value) if isinstance(value, str) else value


def unmasked(value: Any, seen: Any, node: Node | None, path: str, wrong: dict[str, str]) -> Any:
    """What somebody sent, with what they saw masked as it stands in the file.

    Args:
        value: what was sent.
        seen: what `shown` made of `node`.
        node: what stood there; None where nothing did.
        path: where the value stands, for complaints.
        wrong: complaints, by path; masks that stand for nothing are added.
    """
    if isinstance(value, str):
        if MASK in value and isinstance(node, Scalar) and value == seen:
            return data_of(node)
        if value == MASK:
            wrong[path] = "*** keeps what stands there, and nothing does"
        return value
    if isinstance(value, Mapping):
        entries = node.entries if isinstance(node, MapNode) else {}
        return {
            key: unmasked(
                item,
                seen[key] if key in entries else None,
                entries[key][1] if key in entries else None,
                f"{path}.{key}",
                wrong,
            )
            for key, item in value.items()
        }
    if isinstance(value, list):
        # Of a list with another length, nobody knows which of its masks is which.
        nodes = items_of(node)
        known = len(nodes) == len(value)
        return [
            unmasked(
                item,
                seen[i] if known else None,
                nodes[i] if known else None,
                f"{path}.{i}",
                wrong,
            )
            for i, item in enumerate(value)
        ]
    return value


def secrets_in(node: Node | None) -> Iterator[str]:
    """Secrets that are written out in a file, and the lines of those that have several."""
    if node is not None:
        for leaf in leaves(node):
            if leaf.secret and is_written_out(leaf.text):
                yield leaf.text
                yield from (line.strip() for line in leaf.text.splitlines())


def hidden(text: str, root: Node, extent: Extent | None, redactor: Redactor) -> str:
    """A file's text for people: no secret in it, however it is written.

    Args:
        text: the text.
        root: what was read from it.
        extent: where that stands in the text.
        redactor: knows what else is secret.
    """
    if extent is not None:
        spans = _secret_spans(root, extent, "", secret=False, above="")
        for start, end in sorted(spans, reverse=True):
            breaks = text[end - 1 : end] == "\n"
            text = text[:start] + MASK + ("\n" if breaks else "") + text[end:]
    return redactor.text(text)


def _secret_spans(
    node: Node, extent: Extent, key: str, *, secret: bool, above: str
) -> Iterator[tuple[int, int]]:
    if isinstance(node, MapNode) and extent.kind == "map":
        for name, child in extent.entries:
            if name.text in node.entries:
                inside = secret or is_secret(name.text, key)
                yield from _secret_spans(
                    node.entries[name.text][1], child, name.text, secret=inside, above=key
                )
    elif isinstance(node, ListNode) and extent.kind == "list":
        for item, child in zip(items_of(node), extent.children, strict=True):
            yield from _secret_spans(item, child, key, secret=secret, above=above)
    elif isinstance(node, Scalar) and extent.kind == "scalar":
        leaf = leaf_of(node, key, secret=secret, above=above)
        if leaf is not None and leaf.secret and is_written_out(leaf.text):
            yield extent.start, extent.end
