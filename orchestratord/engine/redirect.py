"""Which redirects are followed."""

from __future__ import annotations

import httpx

MAX_REDIRECTS = 3

_METHOD_KEPT = (307, 308)
_METHOD_CHANGED = (301, 302, 303)
# Headers that speak of a body, and go where it goes.
_BODY_HEADERS = (
    b"content-length",
    b"transfer-encoding",
    b"content-type",
    b"content-encoding",
    b"content-language",
    b"content-location",
)


def origin(url: httpx.URL) -> tuple[bytes, bytes, int]:
    """Scheme, host and port of an http or https URL, the port also where it is the default."""
    scheme = url.raw_scheme
    return scheme, url.raw_host, url.port or (443 if scheme == b"https" else 80)


def redirected(request: httpx.Request, response: httpx.Response) -> httpx.Request | None:
    """The request that follows a redirect, or None where it is not to be followed.

    Only within the origin: the headers may hold credentials, which are nobody else's business.
    After 303, and after 301 or 302 to a POST, it is a GET without a body.
    """
    status = response.status_code
    if status not in _METHOD_KEPT and status not in _METHOD_CHANGED:
        return None
    location = response.headers.get("location")
    if not location:
        return None
    try:
        url = request.url.join(location)
    except (httpx.InvalidURL, ValueError):
        return None
    if origin(url) != origin(request.url) or url.userinfo:
        return None
    method, headers, body = request.method, request.headers.raw, request.content
    becomes_get = (status == 303 and method != "HEAD") or (
        status in (301, 302) and method == "POST"
    )
    if becomes_get:
        method, body = "GET", b""
        headers = [field for field in headers if field[0].lower() not in _BODY_HEADERS]
    # Given as a stream, the body brings no headers of its own beside those that are there.
    following = httpx.Request(
        method,
        url,
        headers=headers,
        stream=httpx.ByteStream(body),
        extensions=request.extensions,
    )
    following.read()
    return following
