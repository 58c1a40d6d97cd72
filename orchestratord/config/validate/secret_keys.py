"""Which keys hold secrets, or look as if they were meant to, by their names; and where secrets
stand that would be stored."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from orchestratord.config.validate.shapes import Path, leaves_of
from orchestratord.values.secret import Text

_SECRET_KEY = re.compile(
    r"(^auth|authorization|cookie|secret|token|password|passwd|api[-_]?key|credentials?)$",
    re.IGNORECASE,
)


_SECRET_WORDS = (
    "auth authorization basic bearer cookie credential key oauth pass passphrase passwd password "
    "pwd secret signature token whsec"
).split()
_LIKE = 0.8
"""From which ratio of `difflib` on a word is taken for another one that is misspelt."""
_URL_KEY = re.compile(r"(.*[._])?(url|proxy|database)")
"""Keys of what may be a secret as a whole, such as a webhook's URL, or hold one anywhere."""
_FREE_KEY = re.compile(r"(.*\.)?(headers|query|body|json|form|text|settings|databases)(\..*)?")
"""Keys below which stands whatever a receiver or a plugin wants, secrets under any name too."""
_TOKEN = re.compile(r"[\w~+=-]{10,}")
_DIGITS_BEGIN_OR_END = re.compile(r"(?<=[^\W\d_])[_~+=-]*(?=\d)|(?<=\d)[_~+=-]*(?=[^\W\d_])")
_WORDS = re.compile(r"[A-Z]*[a-z]+|[A-Z]+")


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """True where a text under `key` is taken for a secret."""
    return bool(_SECRET_KEY.search(key))


@lru_cache(maxsize=4096)
def resembles_secret_key(key: str) -> bool:
    """True where `key` holds a secret or something that belongs to one, or may be misspelt and
    meant to: `bearrer`, `clientSecrt`, `pasword`."""
    words = _words(key)
    return is_secret_key(key) or any(map(_resembles, {*words, "".join(words)}))


@lru_cache(maxsize=4096)
def is_named_for_secret(key: str) -> bool:
    """True where a word in `key` is one that secrets are called by; nothing is taken for
    misspelt."""
    return is_secret_key(key) or any(map(_is_named, _words(key)))


def _words(key: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(key)]


def _is_named(word: str) -> bool:
    return any(word == secret or (len(secret) > 4 and secret in word) for secret in _SECRET_WORDS)


def _resembles(word: str) -> bool:
    return _is_named(word) or any(
        difflib.SequenceMatcher(None, word, secret).ratio() >= _LIKE
        or sorted(word) == sorted(secret)
        for secret in _SECRET_WORDS
    )


def is_below_secret(path: str) -> bool:
    """True where one of the keys of a dotted path resembles one that holds a secret."""
    return any(resembles_secret_key(key) for key in path.split("."))


def holds_url(path: str) -> bool:
    """True where the last key of a dotted path holds a URL or a part of one, which may hold a
    secret at any place once it is wrong."""
    return _URL_KEY.fullmatch(path) is not None


def is_free(path: str) -> bool:
    """True where one of the keys of a dotted path holds what is named by others than us."""
    return _FREE_KEY.fullmatch(path) is not None


def without_tokens(text: str) -> str:
    """`text`, as long as it was, with each word masked that looks like a token: letters and digits
    in turn, or a long number."""
    return _TOKEN.sub(lambda match: "*" * len(match[0]) if _is_token(match[0]) else match[0], text)


def _is_token(word: str) -> bool:
    turns = len(_DIGITS_BEGIN_OR_END.findall(word))
    return turns >= 3 or (turns > 0 and len(word) >= 16) or word.isdecimal()


def secret_values(data: Any) -> Iterator[Path]:
    """Where secrets stand in the defaults of parameters and in the schedule's `params`.

    Args:
        data: an endpoint's own keys as `NodeReader.read` gives them, whatever is wrong with them.
    """
    params = _mapping(_mapping(data).get("params"))
    for name, param in params.items():
        default = _mapping(param).get("default")
        path = ("params", name, "default")
        if is_secret_key(name) and isinstance(default, str) and default:
            yield path
        else:
            yield from _secrets(default, path)
    scheduled = _mapping(_mapping(data).get("schedule")).get("params")
    yield from _secrets(scheduled, ("schedule", "params"))


def _secrets(value: Any, path: Path) -> Iterator[Path]:
    return (at for at, leaf in leaves_of(value, path) if isinstance(leaf, Text) and leaf.secret)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
