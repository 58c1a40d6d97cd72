"""The page of an endpoint's webhooks: what it asks about first."""

from __future__ import annotations

from typing import Any, cast

import orchestratord_editor
import pytest
from orchestratord_editor import webhook_page

from orchestratord import Config, Control
from orchestratord.testing import Rig


class Asked:
    """Remembers the status code that it is to explain."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.code: str | None = None

    async def explain(self, endpoint_id: str, **about: Any) -> dict[str, Any]:
        self.code = about["status_code"]
        return {"decision": None, "reached": [], "consequences": []}


@pytest.mark.parametrize(
    ("type_", "code"), [("http", "503"), ("event", "ok"), ("sql", "error"), ("other", "503")]
)
async def test_the_first_code_is_one_that_its_type_has(type_: str, code: str) -> None:
    rig = Rig(orchestratord_editor)
    asked = Asked(rig.config(rig.endpoint("shop/x", type=type_)))
    await webhook_page._firing(cast("Control", asked), "shop/x", {})
    assert asked.code == code
