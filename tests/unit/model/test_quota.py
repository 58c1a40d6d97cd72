"""What an API says of its quota, in headers of its own and in those of the IETF."""

from __future__ import annotations

import httpx
import pytest

from orchestratord.model.quota import Quota

NAMED = {"remaining": "X-RateLimit-Remaining", "reset": "X-RateLimit-Reset"}


@pytest.mark.parametrize(
    ("headers", "reset"),
    [
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795557600"}, "1795557600"),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}, "30"),
        ({"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "30"}, None),
        ({"X-RateLimit-Remaining": "0"}, None),
        ({"X-RateLimit-Remaining": "many", "X-RateLimit-Reset": "30"}, None),
        ({"X-RateLimit-Reset": "30"}, None),
        ({}, None),
        # draft-ietf-httpapi-ratelimit-headers-09 and after
        ({"RateLimit": '"default";r=0;t=30'}, "30"),
        ({"RateLimit": '"default";r=5;t=30'}, None),
        ({"RateLimit": '"a, b";r=0;t=30, "day";r=0;t=900, "c";r=9;t=5000'}, "900"),
        ({"RateLimit": '"day";r=0', "RateLimit-Policy": '"s";q=5;w=1, "day";q=9;w=86400'}, "86400"),
        ({"RateLimit": '"day";r=0'}, None),
        # and before
        ({"RateLimit": "limit=100, remaining=0, reset=50"}, "50"),
        ({"RateLimit": "limit=100, remaining=3, reset=50"}, None),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "17"}, "17"),
        ({"RateLimit-Remaining": "10", "RateLimit-Reset": "17"}, None),
    ],
)
@pytest.mark.parametrize("names", [NAMED, {}])
def test_when_there_is_more(
    names: dict[str, str], headers: dict[str, str], reset: str | None
) -> None:
    named = any(name.lower().startswith("x-") for name in headers)
    found = Quota(**names).reset_of(httpx.Response(200, headers=headers))
    assert found == (None if named and not names else reset)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"remaining": "X-Left"}, "give both remaining and reset"),
        ({"reset": "X-Reset"}, "give both remaining and reset"),
        ({"remaining": "X Left", "reset": "X-Reset"}, "is not the name of a header"),
        ({"left": "X-Left"}, "left"),
    ],
)
def test_what_quota_may_say(keys: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Quota.model_validate(keys)
