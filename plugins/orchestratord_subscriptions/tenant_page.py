"""The page of tenants in the dashboard: who fails, and since when."""

from collections.abc import Iterable
from urllib.parse import quote

from markupsafe import Markup

from orchestratord import Page, PageVisit, rfc3339
from orchestratord_subscriptions.routes import SubscriptionRoutes
from orchestratord_subscriptions.subscription import SUBSCRIPTION_ROWS
from orchestratord_subscriptions.tenant_rows import TenantRows

MOST = 100
"""Failing subscriptions that are listed."""
_TABLE = Markup(
    '<section class="scrolls"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></section>'
)
_LIVE = Markup('<div id="tenants" data-morph>{}</div>')
_ROW = Markup("<tr>{}</tr>")
_LINK = Markup('<a href="/retries?endpoint=subscriptions&amp;webhook={}">{}</a>')
_WHEN = Markup('<time datetime="{0}" title="{0}" data-when>{0}</time>')
_NEXT = Markup('<p><a href="/tenants?after={}">More</a></p>')


def tenant_page(tenants: TenantRows, routes: SubscriptionRoutes) -> Page:
    """The page. It shows no address: those are the tenants' own."""

    async def failing() -> Markup:
        """Those that fail now, the longest first."""
        found = await tenants.control.rows(
            SUBSCRIPTION_ROWS.name, after={"failing_since": 0}, order="failing_since", limit=MOST
        )
        rows = [
            (
                _link(f"{one['tenant']}/{one['id']}"),
                _when(rfc3339(one["failing_since"])),
                one["last_status_code"],
                one["disabled_reason"],
            )
            for one in found
            if one["url"]
        ]
        heads = ("Failing subscription", "Since", "Last answer", "Disabled")
        return _table(heads, rows) if rows else Markup("<p>No subscription fails.</p>")

    async def show(visit: PageVisit) -> Markup:
        page = (await routes.page({}, {"after": visit.query.get("after", "")}, None)).body
        names = ("name", "subscriptions", "failing", "failing_since", "disabled")
        rows = [
            (
                _link(f"{one['tenant']}/*", one["tenant"]),
                *(_when(one[name]) if name == "failing_since" else one[name] for name in names),
            )
            for one in page["tenants"]
        ]
        heads = ("Tenant", "Name", "Subscriptions", "Failing", "Since", "Disabled")
        more = _NEXT.format(quote(page["next"])) if page["next"] else ""
        return _LIVE.format(await failing() + _table(heads, rows) + more)

    live = "task.failed,task.succeeded,webhook.*,config.*"
    return Page("/tenants", "Tenants", show, menu=False, live=live)  # most have no tenants


def _link(webhook: str, text: str = "") -> Markup:
    return _LINK.format(quote(webhook, safe=""), text or webhook)


def _when(time: str | None) -> Markup | None:
    """A time, which the dashboard's script shows as how long ago it was."""
    return None if time is None else _WHEN.format(time)


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> Markup:
    return _TABLE.format(
        _cells("th", heads), Markup("").join(_ROW.format(_cells("td", row)) for row in rows)
    )


def _cells(tag: str, cells: Iterable[object]) -> Markup:
    made = Markup(f"<{tag}>{{}}</{tag}>")  # noqa: S704  # a tag of ours
    return Markup("").join(made.format("" if cell is None else cell) for cell in cells)
