"""JSON with the values of templates in it, worked out once but for these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orchestratord.values.template import Template, TemplateTree


class JsonText:
    """A tree as JSON, all of it worked out that no template changes.

    Args:
        tree: what is written.
        encode: writes one value; raises TypeError or ValueError for one that JSON cannot hold.
    """

    __slots__ = ("_encode", "_pieces")

    def __init__(self, tree: TemplateTree, encode: Callable[[Any], str]) -> None:
        self._encode = encode
        pieces: list[str | Template] = [""]
        for piece in _pieces(tree.tree, encode):
            if isinstance(piece, str) and isinstance(pieces[-1], str):
                pieces[-1] += piece
            else:
                pieces.append(piece)
        self._pieces = tuple(pieces)

    def render(self, context: Mapping[str, Any]) -> str:
        """The text. Raises InvalidPayload, and what `encode` raises."""
        encode = self._encode
        return "".join(
            [
                piece if type(piece) is str else encode(piece.render(context))  # type: ignore[union-attr]
                for piece in self._pieces
            ]
        )


def _pieces(tree: Any, encode: Callable[[Any], str]) -> Iterator[str | Template]:
    if isinstance(tree, Template):
        yield tree
    elif isinstance(tree, dict):
        before = "{"
        for key, item in tree.items():
            yield f"{before}{encode(key)}:"
            yield from _pieces(item, encode)
            before = ","
        yield "}" if tree else "{}"
    elif isinstance(tree, list):
        before = "["
        for item in tree:
            yield before
            yield from _pieces(item, encode)
            before = ","
        yield "]" if tree else "[]"
    else:
        yield encode(tree)
