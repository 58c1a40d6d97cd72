"""What an edit may do with references and secrets: keep them where they are, and nothing else.

An item's `url` says where its secrets go. A reference, or a secret that is written out, may stand
in an item only if one with the same origin (scheme, host and port) held it before. So no edit sends
a secret to a receiver that did not get it already.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from orchestratord import MASK, Problem, Redactor, is_secret_header, is_secret_key, nodes
from orchestratord_editor.text_positions import Extent

_TOKEN = re.compile(r"\$\$\{|\$\{[^{}]*\}|\$\{")
_SCHEME = re.compile(r"\s*((bearer|basic|token)\s+|whsec_)?\s*", re.IGNORECASE | re.ASCII)
_ORIGIN = re.compile(
    r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]+))?(?=[/?#]|\Z)",
    re.IGNORECASE | re.ASCII,
)
_PORTS = {"http": 80, "https": 443}
_REFERRED = re.compile(
    r"https?://(?:[A-Za-z0-9.:-]|\$\{[^{}]*\})+(?=[/?#]|\Z)", re.IGNORECASE | re.ASCII
)


class Leaf(NamedTuple):
    """A value in an item: where it stands, as it is written, and whether it is a secret."""

    spot: nodes.Spot
    text: str
    secret: bool


class _Under(NamedTuple):
    """The keys that a value stands under: the last one, the one above it, and whether any is a
    secret's by its name."""

    key: str = ""
    above: str = ""
    secret: bool = False

    def below(self, name: str) -> _Under:
        """The keys of what stands under `name` there."""
        named = is_secret_key(name) or (self.key == "headers" and is_secret_header(name))
        return _Under(name, self.key, self.secret or named)


_TOP = _Under()
_IN_FILE = "to have *** itself there, write that into the YAML file"


class SecretsByOrigin:
    """What the items of lists hold, by the origin that they send it to."""

    def __init__(self, *lists: nodes.Node | None) -> None:
        self._texts: dict[str, set[str]] = defaultdict(set)
        self._tokens: dict[str, dict[str, None]] = defaultdict(dict)
        for list_ in lists:
            for item in nodes.items_of(list_):
                at = origin(item)
                for leaf in leaves(item):
                    self._texts[at].add(leaf.text)
                    self._tokens[at].update(dict.fromkeys(_TOKEN.findall(leaf.text)))

    def references(self, item: nodes.Node) -> tuple[str, ...]:
        """Those that an item may hold, as it is sent to now."""
        tokens = self._tokens.get(origin(item), ())
        return tuple(token for token in tokens if token.endswith("}"))

    def problems(self, items: nodes.Node | None, file: str) -> Iterator[Problem]:
        """What other items would send where it was not sent before.

        Args:
            items: as they would be, with what they inherit.
            file: the file that is edited; problems are reported in it.
        """
        for spot, item in items.items if isinstance(items, nodes.ListNode) else ():
            at = origin(item)
            place = _place(spot, item, file)
            for leaf in leaves(item, spot):
                here = leaf.spot if leaf.spot.file == file else place
                if (message := self._problem(leaf, at)) is not None:
                    yield here.problem(message)

    def _problem(self, leaf: Leaf, at: str) -> str | None:
        if leaf.text in self._texts.get(at, ()):
            return None
        tokens = _TOKEN.findall(leaf.text)
        if leaf.secret and is_written_out(leaf.text):
            return (
                "a secret cannot be written here; write a reference into the file manually, and it "
                "can be used at this origin"
            )
        if "$${" in tokens or "${" in tokens:
            return "`${` cannot be written here; write it into the file manually"
        for token in tokens:
            if token not in self._tokens.get(at, ()):
                # The default of a variable may be a secret.
                return (
                    f"the reference {token.partition(':-')[0].rstrip('}')}}} does not stand in a "
                    "webhook of this endpoint with the same scheme, host and port; write it into "
                    "the file manually"
                )
        return None


def leaves(
    node: nodes.Node, spot: nodes.Spot = nodes.NOWHERE, under: _Under = _TOP
) -> Iterator[Leaf]:
    """All values of an item, or of what stands `under` keys of one."""
    if isinstance(node, nodes.MapNode):
        for name, (place, child) in node.entries.items():
            yield from leaves(child, place, under.below(name))
    elif isinstance(node, nodes.ListNode):
        for place, child in node.items:
            yield from leaves(child, place, under)
    elif node.value is not None and (under.secret or isinstance(node.value, str)):
        number = not isinstance(node.value, str)
        # A number under such a key is rather a limit, but for where a text is meant.
        secret = under.secret and (not number or under.above in ("", "headers"))
        yield Leaf(spot, node.text, secret)


def _is_secret(node: nodes.Scalar, under: _Under) -> bool:
    """Whether a secret is written out in a scalar."""
    found = leaves(node, under=under)
    return any(leaf.secret and is_written_out(leaf.text) for leaf in found)


def origin(item: nodes.Node) -> str:
    """Where an item sends to: scheme, host and port, or the whole URL where it hides these.

    Where references are a part of the host, up to the first `/` behind it: whatever they stand for,
    what follows that is not a part of it. A Host header of its own is a host as well, and so is
    where a token is asked for, which secrets go to, too.
    """
    if not isinstance(item, nodes.MapNode) or "url" not in item.entries:
        return ""
    node = item.entries["url"][1]
    text = node.text if isinstance(node, nodes.Scalar) else ""
    if (match := _ORIGIN.match(text)) is not None:
        scheme = match[1].lower()
        found = f"{scheme}://{match[2].lower()}:{match[3] or _PORTS[scheme]}"
    elif (match := _REFERRED.match(text)) is not None:
        found = f"={match[0]}"
    else:
        found = f"={text}"
    oauth2 = nodes.mapping_of(nodes.mapping_of(item.child("auth")).child("oauth2"))
    if isinstance(token_url := oauth2.child("token_url"), nodes.Scalar):
        found += f" by {token_url.text}"
    headers = item.entries["headers"][1] if "headers" in item.entries else None
    for name, (_, value) in headers.entries.items() if isinstance(headers, nodes.MapNode) else ():
        if name.lower() == "host":
            found += f" as {value.text if isinstance(value, nodes.Scalar) else ''}"
    return found


def is_written_out(text: str) -> bool:
    """True where a secret is more than references, and the word that says of which kind it is."""
    if "{{" in text and not _TOKEN.search(text):
        return False
    tokens = _TOKEN.findall(text)
    if not tokens or any(":-" in token or not token.endswith("}") for token in tokens):
        return bool(text)
    return not _SCHEME.fullmatch(_TOKEN.sub("", text))


def _place(spot: nodes.Spot, item: nodes.Node, file: str) -> nodes.Spot:
    """The place of an item in the file; its URL's, or its name's, where it is another's as well."""
    if isinstance(item, nodes.MapNode):
        for key in ("url", "name"):
            if key in item.entries and item.entries[key][0].file == file:
                return item.entries[key][0]
    return spot


# -- what people see of secrets that are written out, and what a mask stands for -------------------


def masked_item(node: nodes.Node, redactor: Redactor, under: _Under = _TOP) -> Any:
    """An item for people: references as they stand in the file, secrets written out masked."""
    if isinstance(node, nodes.MapNode):
        entries = node.entries.items()
        return {
            name: masked_item(child, redactor, under.below(name)) for name, (_, child) in entries
        }
    if isinstance(node, nodes.ListNode):
        return [masked_item(child, redactor, under) for _, child in node.items]
    if _is_secret(node, under):
        return MASK
    value = nodes.data_of(node)
    return redactor.text(value) if isinstance(value, str) else value


def unmasked(
    value: Any, seen: Any, node: nodes.Node | None, path: str, wrong: dict[str, str]
) -> Any:
    """What was sent, with what was shown masked as it stands in the file.

    Args:
        value: what was sent.
        seen: what `masked_item` made of `node`.
        node: what stood there; None where nothing did.
        path: where the value stands, for problems.
        wrong: problems, by path; masks that stand for nothing are added.
    """
    if isinstance(value, str):
        # A text that is shown as it is may have stars of its own.
        own = nodes.data_of(node) if isinstance(node, nodes.Scalar) else None
        if MASK in value and own is not None and value == seen:
            return own
        if value == MASK:
            wrong[path] = f"*** keeps a value, and there is none; {_IN_FILE}"
        elif MASK in value and own is None:
            wrong[path] = f"*** hides a part of it; write the whole value; {_IN_FILE}"
        elif MASK in value and seen != own:
            wrong[path] = "*** hides a part of it; write the whole value, or leave it as it was"
        return value
    if isinstance(value, Mapping):
        there = nodes.mapping_of(node)
        known = seen if there.entries else {}
        return {
            key: unmasked(item, known.get(key), there.child(key), f"{path}.{key}", wrong)
            for key, item in value.items()
        }
    if isinstance(value, list):
        # Of a list with another length, it is not known which of its masks is which.
        stood = nodes.items_of(node)
        known = len(stood) == len(value)
        return [
            unmasked(
                item, seen[i] if known else None, stood[i] if known else None, f"{path}.{i}", wrong
            )
            for i, item in enumerate(value)
        ]
    return value


def secrets_in(node: nodes.Node | None) -> Iterator[str]:
    """Secrets that are written out in a file, and the lines of those that have several."""
    if node is not None:
        for leaf in leaves(node):
            if leaf.secret and is_written_out(leaf.text):
                yield leaf.text
                yield from (line.strip() for line in leaf.text.splitlines())


def masked_text(text: str, root: nodes.Node, extent: Extent | None, redactor: Redactor) -> str:
    """A file's text for people: no secret in it, however it is written.

    Args:
        text: the text.
        root: what was read from it.
        extent: where that stands in the text.
        redactor: knows what else is secret.
    """
    if extent is not None:
        for start, end in sorted(_secret_spans(root, extent, _TOP), reverse=True):
            breaks = text[end - 1 : end] == "\n"
            text = text[:start] + MASK + ("\n" if breaks else "") + text[end:]
    return redactor.text(text)


def _secret_spans(node: nodes.Node, extent: Extent, under: _Under) -> Iterator[tuple[int, int]]:
    if isinstance(node, nodes.MapNode) and extent.kind == "map":
        for key, child in extent.entries:
            if (inside := node.child(key.text)) is not None:
                yield from _secret_spans(inside, child, under.below(key.text))
    elif isinstance(node, nodes.ListNode) and extent.kind == "list":
        for item, child in zip(nodes.items_of(node), extent.children, strict=True):
            yield from _secret_spans(item, child, under)
    elif isinstance(node, nodes.Scalar) and extent.kind == "scalar" and _is_secret(node, under):
        yield extent.start, extent.end
