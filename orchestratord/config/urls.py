"""What a `base_url`, a `token_url` and a `path` may be."""

from __future__ import annotations

import re
from functools import lru_cache

import httpx

from orchestratord.config.templates import literal, written
from orchestratord.template import Template

_UNFIT = re.compile(r"[\s\\%$<>\"`|^{}]")
_PORTS = {"http": 80, "https": 443}


def url_problem(url: str, *, query: bool = False) -> str | None:
    """What is wrong with a `base_url`, in words; None where it can be used. Other URLs may have a
    `query`."""
    if "{{" in url:
        return "takes no template; what changes from call to call belongs into an endpoint's path"
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in _PORTS:
        return "begins with http:// or https://"
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return "holds no user name or password; write them under auth"
    if "?" in rest and not query:
        return "holds no query; write it under an endpoint's query"
    if "#" in rest:
        return "holds no fragment; leave out what begins with #"
    if any(character.isspace() or not character.isprintable() for character in url):
        return "holds no blanks or control characters"
    if host_and_port(url) is None:
        return "has no host or port that can be used"
    return None


def path_problem(path: Template) -> str | None:
    """What is wrong with a `path`, in words; None where it can be used."""
    if literal(path).lstrip().lower().startswith(("http://", "https://")):
        return "is added to base_url, and holds no host; write scheme and host to base_url"
    if "#" in written(path):
        return "a request has no fragment; write %23 where the character # itself is meant"
    return None


@lru_cache(maxsize=4096)
def host_and_port(url: str) -> tuple[str, int] | None:
    """The host (without brackets) and the port of an http or https URL; None for others."""
    scheme, separator, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not separator or scheme.lower() not in _PORTS or _UNFIT.search(authority):
        return None
    try:
        parsed = httpx.URL(f"{scheme.lower()}://{authority}/")
    except (httpx.InvalidURL, ValueError):
        return None
    port = _PORTS[scheme.lower()] if parsed.port is None else parsed.port
    host = parsed.raw_host.decode("ascii")
    return (host, port) if host and 0 < port <= 65535 else None
