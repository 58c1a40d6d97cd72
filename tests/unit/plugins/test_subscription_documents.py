"""What tenants see of a subscription, and how one is changed."""

from __future__ import annotations

import pytest
from orchestratord_subscriptions.subscription import for_tenant
from orchestratord_subscriptions.subscription_documents import PatchedSubscription

from orchestratord import Egress
from orchestratord.http.egress import EgressDenied


@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.2", "169.254.169.254", "fd00::7"])
def test_an_error_names_no_address_of_the_operators_network(address: str) -> None:
    with pytest.raises(EgressDenied) as denied:
        Egress().check(address, 443, "hooks.tenant.example")
    assert for_tenant(str(denied.value)) == "its host leads to an address that is not public"
    assert for_tenant("503 Service Unavailable") == "503 Service Unavailable"
    assert for_tenant(None) is None


@pytest.mark.parametrize("given", [None, "null", ""])
@pytest.mark.parametrize(("key", "cleared"), [("when", None), ("rate", None), ("events", ())])
def test_a_key_is_cleared(key: str, given: str | None, cleared: object) -> None:
    changed = PatchedSubscription.read({key: given})
    assert changed.model_fields_set == {key}
    assert getattr(changed, key) == cleared
