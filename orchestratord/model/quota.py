"""`quota`: what an API says in its headers of how much may still be asked of it."""

from __future__ import annotations

import re
from typing import Annotated

import httpx
from pydantic import AfterValidator, model_validator

from orchestratord.model.declared import Model
from orchestratord.model.http_message import TOKEN, header

CODES = frozenset({403, 429})
"""Answers that say that nothing is left, where their headers do."""
_NAME = re.compile(TOKEN.decode())
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FIELD = re.compile(r"(?:^|[;,\s])(\w+)\s*=\s*(\d{1,18})")
_NUMBER = re.compile(r"\s*(\d{1,18}(?:\.\d+)?)")


def _header_name(name: str) -> str:
    if _NAME.fullmatch(name):
        return name
    raise ValueError("is not the name of a header")


HeaderName = Annotated[str, AfterValidator(_header_name)]


class Quota(Model):
    """The headers with an API's quota. The daemon also understands the IETF fields `RateLimit` and
    `RateLimit-Policy`, without their names here."""

    remaining: HeaderName | None = None
    """The header with the number of requests left, such as X-RateLimit-Remaining."""
    reset: HeaderName | None = None
    """The header with the end of the quota: a time, or seconds from now."""

    @model_validator(mode="after")
    def _check_both(self) -> Quota:
        if (self.remaining is None) != (self.reset is None):
            raise ValueError("give both remaining and reset, or {} for the fields of the IETF")
        return self

    def reset_of(self, response: httpx.Response) -> str | None:
        """What an answer with nothing left says of when there is more, as it stands there, or in
        seconds; None where something is left, or it says nothing of it."""
        if self.remaining is not None and self.reset is not None:
            left = _NUMBER.match(header(response, self.remaining.lower()) or "")
            if left is not None and float(left[1]) < 1:
                return header(response, self.reset.lower())
        left = _NUMBER.match(header(response, "ratelimit-remaining") or "")
        if left is not None and float(left[1]) < 1:  # as the first drafts had it
            return header(response, "ratelimit-reset")
        windows = _policies(header(response, "ratelimit-policy") or "", "w", "w")
        found = _policies(header(response, "ratelimit") or "", "r", "remaining")
        resets = _policies(header(response, "ratelimit") or "", "t", "reset")
        waits = [resets.get(name, windows.get(name)) for name, left in found.items() if not left]
        known = [seconds for seconds in waits if seconds is not None]
        return str(max(known)) if known else None


def _policies(text: str, *fields: str) -> dict[str, int]:
    """Of each policy that a field names, the value of the first of these parameters:
    `"default";r=0;t=30`, or `limit=100, remaining=0, reset=30` of the drafts before."""
    found: dict[str, int] = {}
    parts = _QUOTED.split(text)
    # Without a name there is one policy, and all of the text is about it.
    for name, part in zip(parts[1::2] or [""], parts[2::2] or parts, strict=True):
        given = dict(_FIELD.findall(part))
        value = next((given[one] for one in fields if one in given), None)
        if value is not None:
            found[name] = int(value)
    return found
