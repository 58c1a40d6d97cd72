"""The page of tenants in the dashboard: who fails, and since when."""

from urllib.parse import quote

from markupsafe import Markup

from orchestratord import Page, PageVisit
from orchestratord_subscriptions.tenant_service import TenantService

EACH = 100
"""Tenants of a page."""
_TABLE = Markup(
    "<table><thead><tr><th>Tenant</th><th>Name</th><th>Subscriptions</th><th>Failing</th>"
    "<th>Since</th><th>Disabled</th></tr></thead><tbody>{}</tbody></table>{}"
)
_ROW = Markup(
    '<tr><td><a href="/retries?tenant={}">{}</a></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>'
    "<td>{}</td></tr>"
)
_NEXT = Markup('<p><a href="/tenants?after={}">More</a></p>')


def tenant_page(tenants: TenantService) -> Page:
    """The page. It shows no address: those are the tenants' own."""

    async def show(visit: PageVisit) -> Markup:
        page = await tenants.page(visit.query.get("after", ""), EACH)
        rows = Markup("").join(
            _ROW.format(
                quote(one["tenant"]),
                one["tenant"],
                one["name"] or "",
                one["subscriptions"],
                one["failing"],
                one["failing_since"] or "",
                one["disabled"],
            )
            for one in page["tenants"]
        )
        more = _NEXT.format(quote(page["next"])) if page["next"] else ""
        return _TABLE.format(rows, more)

    return Page("/tenants", "Tenants", show)
