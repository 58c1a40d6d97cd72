"""What an edit may do with references and secrets: keep them where they are, and nothing else.

An item's `url` says to whom its secrets go. A reference, or a secret that is written out, may stand
in an item only if one with the same origin (scheme, host and port) held it before. So no edit sends
a secret to anybody who did not get it already.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from orchestratord.config.editing.matching import items_of
from orchestratord.config.positions import ListNode, MapNode, Node, Scalar, Spot
from orchestratord.config.secret_keys import is_secret_key
from orchestratord.errors import Problem
from orchestratord.redact import is_secret_header

_TOKEN = re.compile(r"\$\$\{|\$\{[^{}]*\}|\$\{")
_SCHEME = re.compile(r"\s*((bearer|basic|token)\s+|whsec_)?\s*", re.IGNORECASE | re.ASCII)
_ORIGIN = re.compile(
    r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]+))?(?=[/?#]|\Z)",
    re.IGNORECASE | re.ASCII,
)
_REFERRED = re.compile(
    r"https?://(?:[A-Za-z0-9.:-]|\$\{[^{}]*\})+(?=[/?#]|\Z)", re.IGNORECASE | re.ASCII
)
_PORTS = {"http": "80", "https": "443"}


class Leaf(NamedTuple):
    """A value in an item: where it stands, as it is written, and whether it is a secret."""

    spot: Spot
    text: str
    secret: bool


class Held:
    """What the items of lists hold, by the origin that they send it to."""

    def __init__(self, *lists: Node | None) -> None:
        self._texts: dict[str, set[str]] = defaultdict(set)
        self._tokens: dict[str, dict[str, None]] = defaultdict(dict)
        for list_ in lists:
            for item in items_of(list_):
                at = origin(item)
                for leaf in leaves(item):
                    self._texts[at].add(leaf.text)
                    self._tokens[at].update(dict.fromkeys(_TOKEN.findall(leaf.text)))

    def references(self, item: Node) -> tuple[str, ...]:
        """Those that an item may hold, as it is sent to now."""
        tokens = self._tokens.get(origin(item), ())
        return tuple(token for token in tokens if token.endswith("}"))

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
                    yield Problem(message, here.file, here.line, here.column, here.key)

    def _complaint(self, leaf: Leaf, at: str) -> str | None:
        if leaf.text in self._texts.get(at, ()):
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
            if token not in self._tokens.get(at, ()):
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


def leaf_of(node: Node, key: str, *, secret: bool, above: str) -> Leaf | None:
    """The value that a scalar is, below the keys `above` and `key`; None for nothing to keep."""
    spot = Spot("", 1, 1, "")
    return next(_leaves(spot, node, key, secret=secret, above=above), None)


def _leaves(spot: Spot, node: Node, key: str, *, secret: bool, above: str) -> Iterator[Leaf]:
    if isinstance(node, MapNode):
        for name, (place, child) in node.entries.items():
            inside = secret or is_secret(name, key)
            yield from _leaves(place, child, name, secret=inside, above=key)
    elif isinstance(node, ListNode):
        for place, child in node.items:
            yield from _leaves(place, child, key, secret=secret, above=above)
    elif node.value is not None and (secret or isinstance(node.value, str)):
        number = not isinstance(node.value, str)
        # A number under such a key is rather a limit, but for where a text is meant.
        yield Leaf(spot, node.text, secret and (not number or above in ("", "headers")))


def origin(item: Node) -> str:
    """To whom an item sends: scheme, host and port, or the whole URL where it hides these.

    Where references are a part of the host, up to the first `/` behind it: whatever they stand for,
    what follows that is not a part of it. A Host header of its own is a host as well.
    """
    if not isinstance(item, MapNode) or "url" not in item.entries:
        return ""
    node = item.entries["url"][1]
    text = node.text if isinstance(node, Scalar) else ""
    if (match := _ORIGIN.match(text)) is not None:
        scheme = match[1].lower()
        found = f"{scheme}://{match[2].lower()}:{match[3] or _PORTS[scheme]}"
    elif (match := _REFERRED.match(text)) is not None:
        found = f"={match[0]}"
    else:
        found = f"={text}"
    headers = item.entries["headers"][1] if "headers" in item.entries else None
    for name, (_, value) in headers.entries.items() if isinstance(headers, MapNode) else ():
        if name.lower() == "host":
            found += f" as {value.text if isinstance(value, Scalar) else ''}"
    return found


def is_written_out(text: str) -> bool:
    """True where a secret is more than references, and the word that says of which kind it is."""
    if "{{" in text and not _TOKEN.search(text):
        return False
    tokens = _TOKEN.findall(text)
    if not tokens or any(":-" in token or not token.endswith("}") for token in tokens):
        return bool(text)
    return not _SCHEME.fullmatch(_TOKEN.sub("", text))


def is_secret(key: str, above: str) -> bool:
    """Whether what stands under a key is a secret by its name; `above`: the key above it."""
    return is_secret_key(key) or (above == "headers" and is_secret_header(key))


def _place(spot: Spot, item: Node, file: str) -> Spot:
    """The place of an item in the file; its URL's, or its name's, where it is another's as well."""
    if isinstance(item, MapNode):
        for key in ("url", "name"):
            if key in item.entries and item.entries[key][0].file == file:
                return item.entries[key][0]
    return spot
