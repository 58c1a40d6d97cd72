"""What is served: the routes of tenants and subscriptions, the portal, and the dashboard's page."""

from __future__ import annotations

from orchestratord import Route
from orchestratord_subscriptions import index
from orchestratord_subscriptions.portal_port import PortalPort
from orchestratord_subscriptions.routes import SubscriptionRoutes
from orchestratord_subscriptions.sent_deliveries import SentDeliveries
from orchestratord_subscriptions.tenant_page import tenant_page
from orchestratord_subscriptions.tenant_rows import TenantRows
from orchestratord_subscriptions.tenant_verbs import SUBSCRIPTION_PATH, TENANT_PATH

_tenants = TenantRows(index)
_routes, _sent = SubscriptionRoutes(_tenants), SentDeliveries(_tenants)
_DELIVERIES = f"{SUBSCRIPTION_PATH}/deliveries"
_SHARED = (
    *_routes.all(),
    Route("POST", f"{SUBSCRIPTION_PATH}/test", _sent.test),
    Route("POST", f"{SUBSCRIPTION_PATH}/replay", _sent.replay),
    Route("GET", _DELIVERIES, _sent.page, confidential=True),
    Route("GET", f"{_DELIVERIES}/{{task}}", _sent.one, confidential=True),
    Route("POST", f"{_DELIVERIES}/{{task}}/retry", _sent.retry),
)
"""Those that the portal serves as well."""
portal = PortalPort(_tenants, _SHARED)
ROUTES = (*_SHARED, Route("POST", f"{TENANT_PATH}/portal", portal.link))
page = tenant_page(_tenants, _routes)
