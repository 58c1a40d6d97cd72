"""What an edit may do with references and secrets: keep them where they are, and nothing else.

An item's `url` says to whom its secrets go. A reference, or a secret that is written out, may stand
in an item only if one with the same origin (scheme, host and port) held it before. So no edit sends
a secret to anybody who did not get it already.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from orchestratord.config.edit_render import data_of
from orchestratord.config.positions import ListNode, MapNode, Node, Scalar, Spot
from orchestratord.config.secret_keys import is_secret_key
from orchestratord.errors import Problem
from orchestratord.redact import MASK, Redactor, is_secret_header

_TOKEN = re.compile(r"\$\$\{|\$\{[^{}]*\}|\$\{")
_SCHEME = re.compile(r"\s*((bearer|basic|token)\s+|whsec_)?\s*", re.IGNORECASE)
_ORIGIN = re.compile(
    r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]+))?(?=[/?#]|$)", re.I
)
_PORTS = {"http": "80", "https": "443"}


class Leaf(NamedTuple):
    """A value in an item: where it stands, as it is written, and whether it is a secret."""

    spot: Spot
    text: str
    secret: bool


class Held:
    """What the items of a list hold, by the origin that they send it to."""

    def __init__(self, items: Node | None) -> None:
        self.texts: dict[str, set[str]] = defaultdict(set)
        self.tokens: dict[str, set[str]] = defaultdict(set)
        for _, item in items.items if isinstance(items, ListNode) else ():
            at = origin(item)
            for leaf in leaves(item):
                self.texts[at].add(leaf.text)
                self.tokens[at].update(_TOKEN.findall(leaf.text))

    def problems(self, items: Node | None, file: str) -> Iterator[Problem]:
        """What other items would send where it was not sent before.

        Args:
            items: as they would be, with what they inherit.
            file: the file that is edited; problems are reported in it.
        """
        for spot, item in items.items if isinstance(items, ListNode) else ():
            at = origin(item)
            place = _place(spot, item, file)
            for leaf in leaves(item, spot):
                here = leaf.spot if leaf.spot.file == file else place
                if (message := self._complaint(leaf, at)) is not None:
                    yield Problem(message, here.file, here.line, here.column, leaf.spot.key)

    def _complaint(self, leaf: Leaf, at: str) -> str | None:
        if leaf.text in self.texts[at]:
            return None
        tokens = _TOKEN.findall(leaf.text)
        if leaf.secret and is_written_out(leaf.text):
            return (
                "a secret cannot be written here; write a reference into the file by hand, and it "
                "can be used at this origin"
            )
        if "$${" in tokens or "${" in tokens:
            return "`${` cannot be written here; write it into the file by hand"
        for token in tokens:
            if token not in self.tokens[at]:
                # The default of a variable may be anybody's secret.
                return (
                    f"the reference {token.partition(':-')[0].rstrip('}')}}} does not stand in a "
                    "webhook of this endpoint with the same scheme, host and port; write it into "
                    "the file by hand"
                )
        return None


def leaves(item: Node, spot: Spot | None = None) -> Iterator[Leaf]:
    """All values of an item."""
    yield from _leaves(spot or Spot("", 1, 1, ""), item, "", secret=False, above="")


def _leaves(spot: Spot, node: Node, key: str, *, secret: bool, above: str) -> Iterator[Leaf]:
    if isinstance(node, MapNode):
        for name, (place, child) in node.entries.items():
            inside = secret or _is_secret(name, key)
            yield from _leaves(place, child, name, secret=inside, above=key)
    elif isinstance(node, ListNode):
        for place, child in node.items:
            yield from _leaves(place, child, key, secret=secret, above=above)
    elif node.value is not None and (secret or isinstance(node.value, str)):
        number = not isinstance(node.value, str)
        # A number under such a key is rather a limit, but for where a text is meant.
        yield Leaf(spot, node.text, secret and (not number or above in ("", "headers")))


def origin(item: Node) -> str:
    """To whom an item sends: scheme, host and port, or the whole URL where it hides these."""
    if not isinstance(item, MapNode) or "url" not in item.entries:
        return ""
    node = item.entries["url"][1]
    text = node.text if isinstance(node, Scalar) else ""
    match = _ORIGIN.match(text)
    if match is None:
        return f"={text}"
    scheme = match[1].lower()
    return f"{scheme}://{match[2].lower()}:{match[3] or _PORTS[scheme]}"


def is_written_out(text: str) -> bool:
    """True where a secret is more than references, and the word that says of which kind it is."""
    if "{{" in text and not _TOKEN.search(text):
        return False
    tokens = _TOKEN.findall(text)
    if not tokens or any(":-" in token or not token.endswith("}") for token in tokens):
        return bool(text)
    return not _SCHEME.fullmatch(_TOKEN.sub("", text))


def shown(node: Node, redactor: Redactor) -> Any:
    """An item for people: references as they stand in the file, secrets written out masked."""
    return _shown(node, redactor, "", secret=False, above="")


def _shown(node: Node, redactor: Redactor, key: str, *, secret: bool, above: str) -> Any:
    if isinstance(node, MapNode):
        return {
            name: _shown(child, redactor, name, secret=secret or _is_secret(name, key), above=key)
            for name, (_, child) in node.entries.items()
        }
    if isinstance(node, ListNode):
        return [_shown(child, redactor, key, secret=secret, above=above) for _, child in node.items]
    for leaf in _leaves(Spot("", 1, 1, ""), node, key, secret=secret, above=above):
        if leaf.secret and is_written_out(leaf.text):
            return MASK
    value = data_of(node)
    return redactor.text(value) if isinstance(value, str) else value


def unmasked(value: Any, seen: Any, node: Node | None, path: str, wrong: dict[str, str]) -> Any:
    """What somebody sent, with what they saw masked as it stands in the file.

    Args:
        value: what was sent.
        seen: what `shown` made of `node`.
        node: the item of the same name; None where there is none.
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
        nodes = [item for _, item in node.items] if isinstance(node, ListNode) else []
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


def _is_secret(key: str, above: str) -> bool:
    return is_secret_key(key) or (above == "headers" and is_secret_header(key))


def _place(spot: Spot, item: Node, file: str) -> Spot:
    """The place of an item in the file; its URL's, or its name's, where it is another's as well."""
    if isinstance(item, MapNode):
        for key in ("url", "name"):
            if key in item.entries and item.entries[key][0].file == file:
                return item.entries[key][0]
    return spot
