"""Whether requests can go where the files send them: URLs, headers, addresses, certificates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import httpx

from orchestratord.config.validate.problems import KeyProblems, Problems
from orchestratord.config.validate.shapes import Path
from orchestratord.config.validate.undefined_names import written
from orchestratord.config.yaml.nodes import Spot
from orchestratord.model.auth import Auth, Proxy, Tls
from orchestratord.model.http_message import PORTS, TOKEN
from orchestratord.values.certificate import certificates, ends
from orchestratord.values.template import Template

_UNFIT = re.compile(r"[\s\\%$<>\"`|^{}]")
_HEADER = re.compile(TOKEN.decode())
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LOOPBACK = ("127.0.0.1", "::1")
"""What `localhost` stands for."""
_NO_CONTROL = "a header holds no line break or control character"


def url_problem(url: str, *, query: bool = False) -> str | None:
    """What is wrong with a `base_url`, in words; None where it can be used. Other URLs may have a
    `query`."""
    if "{{" in url:
        return "takes no template; what changes from call to call belongs into an endpoint's path"
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in PORTS:
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
    if _CONTROL.search(path.literal) or "\t" in path.literal:
        return "a path holds no line break or control character"
    if path.literal.lstrip().lower().startswith(("http://", "https://")):
        return "is added to base_url, and holds no host; write scheme and host to base_url"
    if "#" in written(path):
        return "a request has no fragment; write %23 where the character # itself is meant"
    return None


def host_and_port(url: str) -> tuple[str, int] | None:
    """The host (without brackets) and the port of an http or https URL; None for others."""
    scheme, separator, rest = url.partition("://")
    authority = _AUTHORITY_ENDS.split(rest, maxsplit=1)[0]
    if not separator or scheme.lower() not in PORTS or _UNFIT.search(authority):
        return None
    return _host_and_port(scheme.lower(), authority)


_AUTHORITY_ENDS = re.compile(r"[/?#]")


@lru_cache(maxsize=4096)  # many URLs have one host
def _host_and_port(scheme: str, authority: str) -> tuple[str, int] | None:
    try:
        parsed = httpx.URL(f"{scheme}://{authority}/")
    except (httpx.InvalidURL, ValueError):
        return None
    port = PORTS[scheme] if parsed.port is None else parsed.port
    host = parsed.raw_host.decode("ascii")
    return (host, port) if host and 0 < port <= 65535 else None


@dataclass(frozen=True, slots=True)
class AddressRules:
    """What the engine knows about addresses, handed in where the program is put together.

    Args:
        check: raises ValueError for an entry of `egress.allow` that cannot be read.
        denied: (entries of `egress.allow`, host, port) → why a host that is an address would be
            refused; None where it would not, and for names.
    """

    check: Callable[[str], object]
    denied: Callable[[Sequence[str], str, int], str | None]


class RequestRules:
    """Checks what leaves the machine, as far as it stands in the files."""

    def __init__(self, problems: Problems, addresses: AddressRules | None) -> None:
        """Without `addresses`, entries of `egress.allow` and literal addresses pass unseen."""
        self._problems = problems
        self._addresses = addresses
        self._denied: dict[tuple[tuple[str, ...], str, int], str | None] = {}

    def check_api(
        self, fields: Mapping[str, Any], keys: KeyProblems, allow: tuple[str, ...]
    ) -> None:
        """The fields of api.yaml, whose problems go to `keys`; `allow` is the daemon's."""
        self.check_headers(fields.get("headers", {}), keys)
        if (auth := fields.get("auth")) is not None:
            self._check_auth(auth, keys)
        if (tls := fields.get("tls")) is not None:
            self._check_dates(tls, keys)
        egress = fields.get("egress")
        allow = (*allow, *self.check_allow(egress.allow if egress else (), keys))
        if auth is not None and auth.oauth2 is not None:
            place = keys.at("auth", "oauth2", "token_url")
            self._check_url(auth.oauth2.token_url, allow, place, query=True)
        proxy: Proxy | None = fields.get("proxy")
        if proxy is not None:
            keys.no_template("write the user and the password, or references", "proxy")
            self._check_target((proxy.host, proxy.port), allow, keys.at("proxy"))
        if (base_url := fields.get("base_url")) is not None:
            self._check_url(base_url, allow, keys.at("base_url"))

    def _check_url(
        self, url: str, allow: Sequence[str], place: Spot, *, query: bool = False
    ) -> None:
        if (wrong := url_problem(url, query=query)) is not None:
            self._problems.error(place, wrong)
        elif (target := host_and_port(url)) is not None:
            self._check_target(target, allow, place)

    def _check_dates(self, tls: Tls, keys: KeyProblems) -> None:
        """Certificates that have ended; of several authorities, only where it is all of them."""
        now = datetime.now(UTC)
        for key, file in (("ca", tls.ca), ("cert", tls.cert)):
            found = certificates(file.content) if file is not None else []
            dates = [ends(one) for one in (found[:1] if key == "cert" else found)]
            if dates and all(date is not None and date < now for date in dates):
                date = max(date for date in dates if date is not None)
                keys.warn(f"its certificate expired on {date:%Y-%m-%d}; renew it", "tls", key)

    def _check_auth(self, auth: Auth, keys: KeyProblems) -> None:
        if auth.header is not None and not _HEADER.fullmatch(auth.header.name):
            keys.error("is not the name of a header", "auth", "header", "name")
        if auth.bearer is not None and auth.bearer.reveal().lower().startswith("bearer "):
            keys.warn("the daemon adds the word Bearer itself; leave it out", "auth", "bearer")
        if auth.basic is not None and ":" in auth.basic.username:
            keys.warn("a colon ends it for the receiver", "auth", "basic", "username")
        value = auth.header.value if auth.header is not None else None
        for path, secret in ((("bearer",), auth.bearer), (("header", "value"), value)):
            if secret is not None and _CONTROL.search(secret.reveal()):
                keys.error(_NO_CONTROL, "auth", *path)

    def check_allow(self, allow: Iterable[str], keys: KeyProblems) -> tuple[str, ...]:
        """The entries of `egress.allow` that can be read."""
        good: list[str] = []
        for index, rule in enumerate(allow):
            try:
                if self._addresses is not None:
                    self._addresses.check(rule)
                good.append(rule)
            except ValueError as error:
                keys.error(str(error), "egress", "allow", index)
        return tuple(good)

    def check_headers(self, headers: Mapping[str, Template], keys: KeyProblems) -> None:
        """The names of `headers`, and what is the same in each value."""
        seen: dict[str, str] = {}
        for name, value in headers.items():
            path = ("headers", name)
            if not _HEADER.fullmatch(name):
                # It may hold the value as well: `{Authorization Bearer S}`.
                place = keys.at(*path)
                keys.problems.error(place, "is not the name of a header", unread=True)
            elif name.lower() in ("content-length", "transfer-encoding"):
                keys.error("is set by the client itself; leave it out", *path)
            elif name.lower() in seen:
                keys.error(f"the same header as {seen[name.lower()]}; keep one", *path)
            seen.setdefault(name.lower(), name)
            if _CONTROL.search(value.literal):
                keys.error(_NO_CONTROL, *path)

    def check_urls(self, data: Any, allow: Sequence[str], keys: KeyProblems) -> None:
        """Each `url` and `token_url` that stands anywhere in `data`."""
        for path, url in _urls(data) if self._addresses is not None else ():
            target = host_and_port(url)
            if target is not None and (denied := self._why_denied(target, allow)) is not None:
                self._problems.warn(keys.at(*path), denied)

    def _check_target(self, target: tuple[str, int], allow: Sequence[str], spot: Spot) -> None:
        if (denied := self._why_denied(target, allow)) is not None:
            self._problems.warn(spot, denied)

    def _why_denied(self, target: tuple[str, int], allow: Sequence[str]) -> str | None:
        if self._addresses is None:
            return None
        asked = (tuple(allow), *target)
        if asked not in self._denied:
            host, port = target
            hosts = _LOOPBACK if host.lower() == "localhost" else (host,)
            try:
                why = [self._addresses.denied(allow, one, port) for one in hosts]
                self._denied[asked] = why[0] if all(why) else None
            except ValueError:
                return None  # one of the rules cannot be read, which is said where it stands
        return self._denied[asked]


def _urls(data: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Each text under a key `url` or `token_url` that is no secret, and its path."""
    if isinstance(data, list | tuple):
        for index, item in enumerate(data):
            yield from _urls(item, (*path, index))
    elif type(data) is dict:  # as all data of nodes are; to ask for a mapping takes long
        for key, value in data.items():
            if type(value) in (dict, list):
                yield from _urls(value, (*path, str(key)))
            elif (
                key in ("url", "token_url")
                and isinstance(value, str)
                and not getattr(value, "secret", False)
            ):
                yield (*path, key), value
