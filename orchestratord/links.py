"""Functions of expressions that take links apart: where the next page of an answer is."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import httpx
from jmespath.functions import Functions as Known
from jmespath.functions import signature

_TEXT = {"types": ["string", "null"]}


class Functions(Known):  # type: ignore[misc]  # it publishes no types
    """JMESPath's own, and `query`, `last_segment` and `link`."""

    @signature(_TEXT, {"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_query(self, url: str | None, name: str) -> str | None:
        """`query(body.next, 'cursor')`: a parameter of a URL's query; null for none."""
        found = parse_qs(urlsplit(url or "").query, keep_blank_values=True).get(name)
        return found[0] if found else None

    @signature(_TEXT)  # type: ignore[untyped-decorator]
    def _func_last_segment(self, url: str | None) -> str | None:
        """`last_segment(body.next)`: the last part of a URL's path; null for none."""
        return unquote(urlsplit(url or "").path.rstrip("/").rpartition("/")[2]) or None

    @signature(_TEXT, {"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_link(self, header: str | None, rel: str) -> str | None:
        """`link(headers.link, 'next')`: the URL that a Link header has for this relation."""
        links = httpx.Response(200, headers={"link": header or ""}).links
        found: str | None = links.get(rel, {}).get("url")
        return found
