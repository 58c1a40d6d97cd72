"""Times that a filter may name."""

from __future__ import annotations

import pytest

from orchestratord.api.filters import _time


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
def test_a_time_that_cannot_be_shown_in_utc_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is neither a duration"):
        _time(text, 0)
