"""References in the texts of the YAML, and what they stand for.

    ${NAME}, ${NAME:-default}   an environment variable
    ${secret:NAME}              an environment variable, secret
    ${file:/path}               the content of a file, secret
    ${credential:name}          a file in $CREDENTIALS_DIRECTORY, secret
    ${KIND:path}                what a plugin reads for its kind, secret
    $${                         the two characters ${ themselves

They are read after the file is parsed, so that a value can hold any character, and what comes out
of one is never read again: neither as a reference nor as a template.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestratord.config.folder import LARGEST, UNREADABLE, fingerprint, placed, read_bytes
from orchestratord.plugin.isolation import is_ctrl_c, words
from orchestratord.plugin.registry import REFERENCE_KINDS, Reference, plain
from orchestratord.values.secret import Text
from orchestratord.values.suggest import suggest

MAX_BYTES = 65_536
"""Of a file that a reference names."""

_REFERENCE = re.compile(r"\$(?:\$\{|\{([^{}]*)\})")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_CREDENTIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@:-]*")
_KIND = re.compile(r"[a-z]{1,16}")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A text without its references. `problems` says which of them stand for nothing."""

    text: Text
    secrets: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    """What stood between the braces of each reference → what it stands for."""


class _NotHere(ValueError):
    """The reference is well formed, and what it names is not on this machine."""


class References:
    """Resolves references against one environment; each file is read once."""

    def __init__(
        self,
        environ: Mapping[str, str],
        folder: Path = Path(),
        pretended: set[str] | None = None,
        kinds: Mapping[str, Reference] = MappingProxyType({}),
        referred: tuple[dict[Any, Any], dict[Any, Any]] | None = None,
    ) -> None:
        """
        Args:
            environ: the environment; it names the folder of credentials.
            folder: the config folder, which other files may be named relative to.
            pretended: gathers the references to secrets that are not here, for which something of
                their form is taken; None: they are errors.
            kinds: those of plugins, by name.
            referred: gathers what was read; what is in it is not read again.
        """
        self._kinds = kinds
        self._read: dict[str, str | _NotHere]
        """What those of plugins stand for in this reading."""
        self._files: dict[tuple[Path, int], tuple[bytes | ValueError, str]]
        """What each held, or why it cannot be read, and the fingerprint of that."""
        self._read, self._files = referred or ({}, {})
        self._environ = environ
        credentials = environ.get("CREDENTIALS_DIRECTORY")
        self._credentials = Path(credentials) if credentials else None
        self._folder = folder
        self._pretended = pretended

    @property
    def files(self) -> dict[str, str]:
        """Each file that was asked for, and the fingerprint of what was read of it."""
        found: dict[str, str] = {}
        for (path, _), (_, seen) in self._files.items():
            found[str(path)] = found.get(str(path)) or seen
        return found

    def attach(self, name: str, limit: int, *, inside: bool) -> tuple[str, bytes]:
        """The path of a file that the YAML names, and what it holds.

        Args:
            name: as it stands there; a relative one is relative to the config folder.
            limit: how many bytes it may hold.
            inside: whether it has to be in the config folder.

        Raises:
            ValueError: it may not be named, cannot be read, or holds more.
        """
        path = placed(name, self._folder, inside=inside)
        try:
            return str(path), self._bytes(path, limit)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None

    def lacks(self, text: str) -> bool:
        """Whether `text` names or refers to a file that is not here, where that is pretended."""
        if self._pretended is None:
            return False
        try:
            if (match := _REFERENCE.fullmatch(text)) is not None:
                self._value(match[1] or "")
            elif "-----BEGIN " not in text and not os.path.isfile(self._folder / text):
                raise _NotHere
        except _NotHere:
            self._pretended.add(text)
            return True
        except ValueError:
            return False  # which is said where it is read
        return False

    def resolve(self, text: str, *, secret: bool = False, form: str = "") -> Resolved | None:
        """The text with each reference replaced; None where there is none in it.

        Args:
            text: as it stands in the file.
            secret: whether it is one as a whole, whatever it refers to.
            form: what it has to begin with, such as a URL, for secrets that are pretended.
        """
        if "${" not in text:
            return None
        parts: list[tuple[str, bool]] = []
        secrets: list[str] = []
        problems: list[str] = []
        values: dict[str, str] = {}
        end = 0
        for match in _REFERENCE.finditer(text):
            parts.append((text[end : match.start()], False))
            end = match.end()
            if match[1] is None:
                parts.append(("${", False))
                continue
            try:
                value, is_secret = self._value(match[1])
            except _NotHere as error:
                if self._pretended is None or not (secret or ":" in match[1]):
                    problems.append(str(error))
                    continue
                self._pretended.add(match[0])
                value, is_secret = form if match.start() == 0 and form else _made(match[1]), True
            except ValueError as error:
                problems.append(str(error))
                continue
            values[match[1]] = value
            parts.append((value, True))
            if is_secret:
                secrets.append(value)
        parts.append((text[end:], False))
        if "${" in _REFERENCE.sub("", text):
            problems.append(
                "'${' is not closed; write ${NAME}, or $${ for the characters themselves"
            )
        joined = Text.of((part for part in parts if part[0]), secret=bool(secrets), source=text)
        return Resolved(joined, tuple(secrets), tuple(problems), values)

    def stands_for(self, inside: str, value: str) -> bool:
        """True where the reference with this between its braces has this value; behind an `@`, a
        file that has this fingerprint."""
        try:
            if inside.startswith("@"):
                return self._file(Path(inside[1:]), LARGEST)[1] == value
            return self._value(inside)[0] == value
        except ValueError:
            return False

    def _value(self, inside: str) -> tuple[str, bool]:
        """What stands between the braces → (value, secret). Raises ValueError."""
        kind, colon, name = inside.partition(":")
        if colon and not name.startswith("-"):
            if kind == "secret":
                return self._variable(name, inside), True
            if kind == "file":
                if not name.startswith("/"):
                    raise ValueError(
                        "${file:…} needs an absolute path, such as ${file:/run/secrets/x}"
                    )
                return self._content(Path(name), inside), True
            if kind == "credential":
                return self._credential(name, inside), True
            if kind in self._kinds:
                return self._of_plugin(kind, name, inside), True
            # What is not well-formed is not named: it may be the secret itself.
            named = f" {kind!r}" if _KIND.fullmatch(kind) else ""
            raise ValueError(
                f"unknown kind of reference{named}"
                + suggest(kind, (*REFERENCE_KINDS, *self._kinds))
                + ("; an environment variable is ${NAME}" if kind == "env" else "")
            )
        match = _VARIABLE.fullmatch(inside)
        if match is None:
            raise ValueError(
                "this is not a reference: write ${NAME}, ${NAME:-default}, or $${ for the "
                "characters themselves"
            )
        if match[2] is not None:
            return self._get(match[1]) or match[2], False
        return self._variable(match[1], inside), False

    def _of_plugin(self, kind: str, name: str, inside: str) -> str:
        if inside not in self._read:
            try:
                value = plain(self._kinds[kind](name))
                if not isinstance(value, str):
                    raise TypeError(f"it is a {type(value).__name__}, and no text")
                self._read[inside] = _text(value.encode())
            except BaseException as error:  # a plugin may raise anything
                if is_ctrl_c(error):
                    raise
                why = str(error) if isinstance(error, ValueError) else words(error)
                self._read[inside] = _NotHere(f"${{{inside}}}: {why}")
        found = self._read[inside]
        if isinstance(found, _NotHere):
            raise found
        return found

    def _variable(self, name: str, inside: str) -> str:
        if not (match := _VARIABLE.fullmatch(name)) or match[2] is not None:
            raise ValueError("${secret:…} needs the name of one environment variable, no default")
        value = self._get(name)
        if value is None:
            remedy = f"write ${{{name}:-default}}" if name == inside else "set it for the daemon"
            raise _NotHere(f"the environment variable {name} is not set; {remedy}")
        return value

    def _get(self, name: str) -> str | None:
        value = self._environ.get(name)
        try:
            return value if value is None else value.encode().decode()
        except UnicodeEncodeError:
            raise ValueError(f"the environment variable {name} is not UTF-8") from None

    def _credential(self, name: str, inside: str) -> str:
        if not _CREDENTIAL.fullmatch(name):
            raise ValueError("${credential:…} needs the plain name of a credential")
        if self._credentials is None:
            raise _NotHere(
                f"${{{inside}}}: there are no credentials, as $CREDENTIALS_DIRECTORY is not set; "
                f"the unit needs LoadCredential={name}:/path"
            )
        return self._content(self._credentials / name, inside)

    def _content(self, path: Path, inside: str) -> str:
        try:
            content = self._bytes(path, MAX_BYTES)
        except ValueError as error:
            raise _NotHere(f"${{{inside}}}: {path} {error}") from None
        try:
            return _text(content)
        except ValueError as error:
            raise ValueError(f"${{{inside}}}: {path} {error}") from None

    def _bytes(self, path: Path, limit: int) -> bytes:
        found, _ = self._file(path, limit)
        if isinstance(found, ValueError):
            raise found
        return found

    def _file(self, path: Path, limit: int) -> tuple[bytes | ValueError, str]:
        if (path, limit) not in self._files:
            try:
                content = read_bytes(path, limit)
                self._files[path, limit] = content, fingerprint(content)
            except ValueError as error:
                self._files[path, limit] = error, UNREADABLE
        return self._files[path, limit]


def _made(inside: str) -> str:
    """What a secret is taken to be that is not here: a token, and base64; no two are the same."""
    return "pretended" + hashlib.sha256(inside.encode()).hexdigest()[:35]


def _text(content: bytes) -> str:
    """The text of a file without the newline at its end. Raises ValueError."""
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("is not a text in UTF-8") from None
    if not text:
        raise ValueError("is empty")
    return text
