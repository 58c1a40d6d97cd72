"""The dashboard's page of tenants."""

from __future__ import annotations

from orchestratord_subscriptions import tenant_page


def test_a_time_is_one_that_the_script_keeps_true() -> None:
    time = "2026-11-24T22:00:00.000Z"
    assert (
        tenant_page._when(time) == f'<time datetime="{time}" title="{time}" data-when>{time}</time>'
    )
    assert tenant_page._when(None) is None
