"""Logging in and out with a browser: a page with a form, which works without any script."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from orchestratord.control.refusal import Refusal

LOGIN = "/login"
LOGOUT = "/logout"

MAX_FORM = 16 << 10
"""Bytes."""
MAX_NEXT = 4_000
"""Characters of an address to go on to."""

_NEXT = re.compile(r"/(?!/)[!-\[\]-~]*")
"""A path on this very host: browsers take `//` and `/\\` for another one."""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 22rem; margin: 15vh auto; padding: 0 1rem; }
h1 { font-size: 1.25rem; }
label, input, button { display: block; box-sizing: border-box; width: 100%; font: inherit; }
input, button { margin: .25rem 0 1rem; padding: .5rem; }
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in – orchestratord</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>orchestratord</h1>
{said}<form method="post" action="{action}">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<input name="next" type="hidden" value="{next}">
<button type="submit">Log in</button>
</form>
<p>Followed a link, and logged in before? <a href="{next}">Go on</a>.</p>
</main>
</body>
</html>
"""
_POLICY = (
    f"default-src 'none'; "
    f"style-src 'sha256-{base64.b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def page(
    status: int, next_: str, said: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """The page with the form.

    Args:
        status: of the answer.
        next_: the path to go on to afterwards.
        said: what went wrong.
        headers: further headers of the answer.
    """
    text = _PAGE.format(
        style=_STYLE,
        said=f'<p role="alert">{escape(said)}</p>\n' if said else "",
        action=LOGIN,
        next=escape(safe_next(next_)),
    )
    return HTMLResponse(text, status, {"content-security-policy": _POLICY, **(headers or {})})


def safe_next(text: str) -> str:
    """`text` if it is a path on this host to go on to, else `/`."""
    if len(text) > MAX_NEXT or not _NEXT.fullmatch(text):
        return "/"
    return "/" if text.partition("?")[0] in (LOGIN, LOGOUT) else text


async def read_form(request: Request) -> tuple[bytes, str]:
    """The token and the path to go on to. Raises Refusal: 413, 415, or 400 for what is no form."""
    types = request.headers.getlist("content-type")
    kinds = [text.partition(";")[0].strip().lower() for text in types]
    if kinds != ["application/x-www-form-urlencoded"]:
        raise Refusal(415, "not_a_form", "send a form: application/x-www-form-urlencoded")
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_FORM:
            raise Refusal(413, "too_large", f"the form is larger than {MAX_FORM >> 10} KiB")
    try:
        fields = parse_qs(raw.decode("ascii"), max_num_fields=10, errors="strict")
    except ValueError:
        raise Refusal(400, "bad_form", "this is not a form") from None
    token = fields.get("token", [""])[0].strip()
    return token.encode(), fields.get("next", ["/"])[0]
