"""What the tests of subscriptions share."""

from tests.acceptance.subscriptions.tenants import make_tenants

__all__ = ["make_tenants"]
