"""From nodes to validated objects: references resolved, secrets known, errors with their places."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote

from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestratord.config.folder import fingerprint
from orchestratord.config.validate.error_text import (
    COLLECTIONS,
    SHORTEST_SECRET,
    choice,
    expectation,
    holds_keys,
    sentence,
    value_text,
)
from orchestratord.config.validate.problems import Problems
from orchestratord.config.validate.request_rules import host_and_port
from orchestratord.config.validate.secret_keys import is_below_secret, is_secret_key
from orchestratord.config.validate.shapes import (
    ANY,
    Member,
    Shape,
    fields_of,
    key_of,
    keyed_fields,
    shape_of,
)
from orchestratord.config.yaml.nodes import ListNode, MapNode, Node, Scalar, Spot, is_null, locate
from orchestratord.config.yaml.references import References
from orchestratord.model.auth import Tls
from orchestratord.plugin.registry import Registry
from orchestratord.values.redact import MASK
from orchestratord.values.secret import Text
from orchestratord.values.signing_key import PRETENDED_KEY
from orchestratord.values.suggest import choices, suggest

_USER_INFO = re.compile(r"[A-Za-z][\w+.-]*://[^\s/?#:@]*:([^\s/?#]+)@")
_IN_QUERY = re.compile(r"[?&](?:ssl)?password=([^\s&#]+)")
_SCHEME = re.compile(r"(?:bearer|basic|token)\s+(\S.*)", re.IGNORECASE)
_TLS = Member("model", Tls)
_FITTING: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float)}


class ReadNode(NamedTuple):
    """A value that was read.

    `value` is None where there are errors. `data` holds what stands in the file, with references
    resolved and without unknown keys. `fields` are a model's fields by key, in case of errors only
    those without, so that what follows from them can be checked all the same.
    """

    value: Any
    data: Any
    fields: Mapping[str, Any]


class NodeReader:
    """Reads nodes for one snapshot, and gathers their problems and secrets."""

    def __init__(self, references: References, registry: Registry, problems: Problems) -> None:
        self.problems = problems
        self.secrets: set[str] = set()
        self.references: dict[str, str] = {}
        """What stands between the braces of each reference → what it stood for; the path of each
        attached file, behind an `@` → its fingerprint."""
        self.registry = registry
        self._references = references
        self._strategies = registry.backoffs
        self._context = {"backoffs": registry.backoffs, "attach": self._attach}
        self._adapters: dict[int, tuple[Any, TypeAdapter[Any], Shape]] = {}
        self._field_adapters: dict[tuple[type[BaseModel], str], TypeAdapter[Any]] = {}
        self._bad: set[Spot] = set()
        """Where a problem was found in the present reading."""
        self._unresolved: set[Spot] = set()
        """Where a reference stands for nothing, so that the value is none."""

    @classmethod
    def quiet(
        cls, registry: Registry, environ: Mapping[str, str], folder: Path = Path()
    ) -> NodeReader:
        """One that reads for itself: of what is wrong in these files, others tell."""
        return cls(References(environ, folder, kinds=registry.references), registry, Problems())

    def read(self, spot: Spot, node: Node, type_: Any, given: Mapping[str, Any] = {}) -> ReadNode:
        """Validate a node as `type_`.

        Args:
            spot: where the node stands.
            node: the node.
            type_: a model, or any type that pydantic can validate.
            given: for a model, values that are already validated, by key.
        """
        self._bad = set()
        self._unresolved = set()
        value = data = None
        try:
            _, adapter, shape = self._adapter(type_)
            data = self._data(spot, node, shape, secret=False)
            if given:
                data = {**data, **given}
            value = adapter.validate_python(data, context=self._context)
        except ValidationError as error:
            self._report(spot, node, error)
        except Exception as error:  # a type may be a plugin's, and its validators raise anything
            self._error(spot, f"cannot be validated: {type(error).__name__}: {error}")
        return ReadNode(None if self._bad else value, data, self._fields(node, type_, value, data))

    @contextlib.contextmanager
    def apart(self) -> Iterator[tuple[set[str], dict[str, str]]]:
        """Gather secrets and references for themselves; afterwards they are among all others."""
        secrets, references = self.secrets, self.references
        self.secrets, self.references = set(), {}
        try:
            yield self.secrets, self.references
        finally:
            secrets |= self.secrets
            references |= self.references
            self.secrets, self.references = secrets, references

    @property
    def hosts(self) -> set[str]:
        """Lanes and errors name the receiver of a URL that is a secret by one of these."""
        found: set[str] = set()
        for host, port in filter(None, map(host_and_port, self.secrets)):
            name = f"[{host}]" if ":" in host else host
            found |= {host, name, f"{name}:{port}"}
        return found

    def stands_for(self, reference: str, value: str) -> bool:
        """True where a reference, given as in `references`, has this value."""
        return self._references.stands_for(reference, value)

    def plain(self, spot: Spot, node: Node) -> Any:
        """A node as plain data, whatever stands in it."""
        return self._data(spot, node, ANY, secret=False)

    def _attach(self, name: str, limit: int, inside: bool) -> bytes:
        """What a file holds that is named where an `Attachment` stands. Raises ValueError."""
        path, content = self._references.attach(name, limit, inside=inside)
        self.references[f"@{path}"] = fingerprint(content)
        return content

    def _adapter(self, type_: Any) -> tuple[Any, TypeAdapter[Any], Shape]:
        # By identity: what annotations hold need not be hashable. The type itself is kept with it.
        found = self._adapters.get(id(type_))
        if found is None:
            found = (type_, TypeAdapter(type_), shape_of(type_))
            self._adapters[id(type_)] = found
        return found

    def _fields(self, node: Node, type_: Any, value: Any, data: Any) -> dict[str, Any]:
        if not isinstance(type_, type) or not issubclass(type_, BaseModel):
            return {}
        if value is not None:
            fields = {key: getattr(value, name) for key, name in keyed_fields(type_)}
        else:
            fields = self._good_fields(type_, data)
        if self._unresolved and isinstance(node, MapNode):
            unresolved = _holders(self._unresolved)
            for key, (place, _) in node.entries.items():
                if (place.file, place.key) in unresolved:
                    fields.pop(key, None)
        return fields

    def _good_fields(self, model: type[BaseModel], data: Any) -> dict[str, Any]:
        good: dict[str, Any] = {}
        for name, info in model.model_fields.items():
            key = key_of(model, name)
            if isinstance(data, Mapping) and key in data:
                adapter = self._field_adapters.get((model, name))
                if adapter is None:
                    type_: Any = info.annotation
                    if info.metadata:
                        type_ = Annotated[(type_, *info.metadata)]
                    adapter = self._field_adapters[model, name] = TypeAdapter(type_)
                with contextlib.suppress(Exception):
                    good[key] = adapter.validate_python(data[key], context=self._context)
            elif not info.is_required():
                good[key] = info.get_default(call_default_factory=True, validated_data={})
        return good

    # -- data ------------------------------------------------------------------------------

    def _data(self, spot: Spot, node: Node, shape: Shape, *, secret: bool) -> Any:
        if isinstance(node, Scalar):
            return self._scalar(spot, node, shape, secret=secret)
        if isinstance(node, ListNode):
            member = shape.member("list")
            item = member.item if member and member.item else ANY
            return [self._data(place, child, item, secret=secret) for place, child in node.items]
        member = shape.member("model", "map", "backoff")
        if member is None:
            return self._mapping(node, ANY)
        if member.kind == "model":
            return self._model(node, member.type)
        if member.kind == "backoff":
            return self._backoff(spot, node)
        return self._mapping(node, member.item or ANY)

    def _mapping(self, node: MapNode, item: Shape) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, (place, child) in node.entries.items():
            if is_null(child) and not item.null:
                if item.member("model", "map") is not None:
                    data[key] = {}
                continue
            secret = is_secret_key(key)
            data[key] = self._data(place, child, item, secret=secret)
        return data

    def _model(self, node: MapNode, model: type[BaseModel]) -> dict[str, Any]:
        fields = fields_of(model)
        data: dict[str, Any] = {}
        for key, (place, child) in node.entries.items():
            shape = fields.get(key)
            if shape is None:
                self._bad.add(place)
                self.problems.unknown_key(place, key, fields)
            elif shape.member("model") == _TLS and self._lacks_files(child):
                continue
            elif not is_null(child) or shape.null:
                secret = is_secret_key(key)
                data[key] = self._data(place, child, shape, secret=secret)
        return data

    def _lacks_files(self, tls: Node) -> bool:
        """Whether a certificate or key is pretended, which no text could stand for."""
        entries = tls.entries.values() if isinstance(tls, MapNode) else ()
        named = [child.text for _, child in entries if isinstance(child, Scalar)]
        return bool([name for name in named if self._references.lacks(name)])

    def _backoff(self, spot: Spot, node: MapNode) -> Any:
        place, child = node.entries.get("strategy", (spot, None))
        if not isinstance(child, Scalar) or not isinstance(child.value, str):
            self._error(place, "needs `strategy`, the name of one" + suggest("", self._strategies))
            return None
        name = self._strategy(place, self._text(place, child, secret=False))
        if name is None:
            return None
        if name not in self._strategies:
            return "fixed"
        options = MapNode({key: entry for key, entry in node.entries.items() if key != "strategy"})
        return {"strategy": name, **self._model(options, self._strategies[name])}

    def _strategy(self, spot: Spot, name: str) -> str | None:
        """The name of a strategy, checked. One of a disabled plugin is a warning."""
        if name in self._strategies:
            return name
        owner = self.registry.absent_owner(name, self.registry.disabled_backoffs)
        if owner is not None:
            self.problems.warn(
                spot,
                f"the strategy {name!r} belongs to the plugin {owner[0]}, which {owner[1]}; "
                "`fixed` is used",
            )
            return name
        self._error(
            spot,
            f"unknown strategy {name!r}" + suggest(name, self._strategies),
            choices(name, self._strategies),
        )
        return None

    def _scalar(self, spot: Spot, node: Scalar, shape: Shape, *, secret: bool) -> Any:
        kind: type = type(node.value)
        member = _for_scalar(shape, kind)
        if node.value is None:
            return None
        if member.kind == "secret":
            return self._text(spot, node, secret=True, literal=True)
        if isinstance(node.value, bool) and _is_number(shape):
            self._error(spot, f"expected a number, not {node.text}")
        if member.kind == "backoff":
            name = self._strategy(spot, self._text(spot, node, secret=False))
            return name if name in self._strategies else "fixed"
        if member.kind == "text" or isinstance(node.value, str):
            # A number under such a key is rather a limit (`max_token: 5`) than a secret.
            return self._text(spot, node, secret=secret and isinstance(node.value, str))
        return node.value

    def _text(self, spot: Spot, node: Scalar, *, secret: bool, literal: bool = False) -> str:
        """The text as it stands in the file, with its references resolved.

        A template under a key that sounds like a secret is none; `literal` says that no template
        can stand there.
        """
        if not secret and "${" not in node.text and "://" not in node.text:
            return node.text  # as nearly always
        form = _form_of(spot.key) if "${" in node.text else ""
        resolved = self._references.resolve(node.text, secret=secret, form=form)
        if "://" in node.text or (resolved is not None and "://" in resolved.text):
            self._password(spot, node.text, str(resolved.text if resolved else node.text))
        if resolved is None:
            if not secret or not node.text or ("{{" in node.text and not literal):
                return node.text
            self._written_out(spot, node.text)
            return Text.of([(node.text, True)], secret=True, source=MASK)
        for problem in resolved.problems:
            self._error(spot, problem)
            self._unresolved.add(spot)
        self.references.update(resolved.values)
        text = resolved.text
        for value in resolved.secrets:
            self.secret(spot, value)
        if not secret:
            return text
        for part, referenced in text.parts:
            if referenced:
                self.secret(spot, part)
        if not literal and any("{{" in part for part, referenced in text.parts if not referenced):
            return Text.of(text.parts, secret=True, source=text.source)
        return Text.of([(str(text), True)], secret=True, source=text.source)

    def _password(self, spot: Spot, written: str, text: str) -> None:
        """A password in a URL is a secret, whatever reads the URL."""
        found = _passwords(text)
        # One that is percent-encoded there stands elsewhere as it is.
        for password in {*found, *map(unquote, found)}:
            self.secret(spot, password)
        if any("${" not in password for password in _passwords(written)):
            self.problems.warn(
                spot,
                "a password is written out here; write ${credential:name}, ${file:/path} or "
                "${secret:NAME} in its place",
            )

    def _written_out(self, spot: Spot, text: str) -> None:
        self.problems.warn(
            spot,
            "a secret is written out here; put it into ${credential:name}, ${file:/path} or "
            "${secret:NAME}",
        )
        self.secret(spot, text)
        if match := _SCHEME.fullmatch(text):
            self.secret(spot, match[1])

    def secret(self, spot: Spot, value: str) -> None:
        """Never show `value`."""
        self.secrets.add(value)
        if 0 < len(value) < SHORTEST_SECRET:
            self.problems.warn(
                spot, f"a secret of less than {SHORTEST_SECRET} characters cannot be masked"
            )

    # -- problems --------------------------------------------------------------------------

    def _error(self, spot: Spot, message: str, hint: str = "") -> None:
        self._bad.add(spot)
        self.problems.error(spot, message, hint)

    def _report(self, spot: Spot, node: Node, error: ValidationError) -> None:
        """Report pydantic's errors, but for values that had a problem before."""
        expected: dict[Spot, tuple[list[str], Any]] = {}
        told: set[Spot] = set()
        known_bad = _holders(self._bad)
        # The innermost first: a list of which no item is good is too short only in consequence.
        found = sorted(error.errors(include_url=False), key=lambda item: -len(item["loc"]))
        for item in found:
            place, _, skipped = locate(spot, node, item["loc"])
            # Of keys in which something is wrong nothing else was meant, such as a text.
            if item["type"] == "too_short" or holds_keys(item["input"]):
                # A reference without a value is told of already: its empty text is not judged.
                known_bad = _holders((self._bad - {place}) | self._unresolved)
            if item["type"] == "missing" and skipped:
                place = place.below(skipped[-1])
            if (place.file, place.key) in known_bad:
                continue
            self._bad.add(place)
            hidden = is_below_secret(place.key)
            if (wanted := expectation(item)) is not None:
                words = expected.setdefault(place, ([], item["input"]))[0]
                if wanted not in words:
                    words.append(wanted)
            else:
                # What should have been a text, and is keys, was read as none of them.
                unread = item["type"] != "missing" and holds_keys(item["input"])
                said = sentence(item, hidden=hidden)
                self.problems.error(place, said, choice(item), unread=unread)
                told.add(place)
        for place, (words, value) in expected.items():
            if place in told:  # of several types that it could have, it is one with a mistake
                continue
            # A text in the place of keys may hold what stands behind them.
            unread = holds_keys(value) or not {*words}.isdisjoint(COLLECTIONS)
            said = value_text(value, hidden=is_below_secret(place.key))
            if unread and isinstance(value, str):
                said = "a text"
            message = f"expected {' or '.join(words)}, not {said}"
            self.problems.error(place, message, unread=unread)


def _form_of(key: str) -> str:
    """What a text under a key has to begin with, by the dotted path of the key."""
    if key.startswith("databases.") or key == "database":
        return "postgresql://pretended.invalid/pretended"
    if key.endswith("proxy"):
        return "http://pretended.invalid:3128"
    if key.endswith("private_key"):
        return PRETENDED_KEY
    return "https://pretended.invalid" if key.endswith("url") else ""


def _passwords(url: str) -> list[str]:
    match = _USER_INFO.match(url.strip())
    return [*(match.groups() if match else ()), *_IN_QUERY.findall(url)]


def _holders(spots: Iterable[Spot]) -> set[tuple[str, str]]:
    """File and key of each spot, and of all that it stands in: what is wrong there follows."""
    holders: set[tuple[str, str]] = set()
    for spot in spots:
        key = spot.key
        while (spot.file, key) not in holders:
            holders.add((spot.file, key))
            key = key.rpartition(".")[0]
    return holders


def _is_number(shape: Shape) -> bool:
    return all(member.kind == "plain" and member.type is not bool for member in shape.members)


@lru_cache(maxsize=4096)
def _for_scalar(shape: Shape, type_: type) -> Member:
    """Which of the members a value of a type that is no collection is meant for."""
    for member in shape.members:
        if member.kind == "plain" and type_ in _FITTING[member.type]:
            return member
    for kind in ("text", "secret", "backoff"):
        for member in shape.members:
            if member.kind == kind:
                return member
    return Member("any")
