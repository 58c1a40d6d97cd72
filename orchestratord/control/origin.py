"""Where a request comes from, as the browser that sends it says.

Nothing here knows who asks. What a page of somebody else has its visitor's browser send is told
apart by headers that no page can set: Host, Origin and Sec-Fetch-Site.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request

from orchestratord.control.refusal import Refusal

READING = ("GET", "HEAD")
_OURS = ("same-origin", "none")
_SCHEMES = ("http", "https")


def check_host(request: Request, hosts: Collection[str]) -> None:
    """Refuse (421) what was not sent to one of these hosts.

    A name that leads to this address without its owner's doing, as in DNS rebinding, is none of
    them, and a browser sends the name.
    """
    given = request.headers.getlist("host")
    if len(given) != 1 or given[0].lower() not in hosts:
        detail = "this host is not served here; http.hosts names those that are"
        raise Refusal(421, "unknown_host", detail)


def check_origin(request: Request, hosts: Collection[str]) -> None:
    """Refuse (403) what another site's page sends, but a link that is followed."""
    if not all(is_own(origin, hosts) for origin in request.headers.getlist("origin")):
        raise _foreign()
    sites = request.headers.getlist("sec-fetch-site")
    if not all(site in _OURS for site in sites) and not _is_link(request):
        raise _foreign()


def check_own(request: Request) -> None:
    """Refuse (403) what no header shows to come from the daemon's own pages.

    For what a browser adds its cookie to; `check_origin` has found nothing foreign.
    """
    sites = request.headers.getlist("sec-fetch-site")
    if "origin" not in request.headers and sites != ["same-origin"]:
        detail = "with a cookie, Origin or Sec-Fetch-Site has to show that this is no other site's"
        raise Refusal(403, "cross_site", detail)


def is_own(origin: str, hosts: Collection[str]) -> bool:
    """Whether a page of this origin came from one of the hosts."""
    scheme, separator, host = origin.partition("://")
    # A proxy may speak TLS in the daemon's place.
    return bool(separator) and scheme in _SCHEMES and host.lower() in hosts


def _is_link(request: Request) -> bool:
    """A page that is opened in a tab of its own: the other site sees nothing of the answer."""
    headers = request.headers
    return (
        request.method in READING
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
        and "authorization" not in headers
    )


def _foreign() -> Refusal:
    return Refusal(403, "cross_site", "this comes from a page of another site")
