"""kill -9 at random moments under load.

The long form is `python -m tests.acceptance.queue.campaign`.
"""

from __future__ import annotations

import pytest

from tests.acceptance.queue.campaign import run


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    report = run(tmp_path_factory.mktemp("k"), cycles=20, seed=20_261_125)
    print("\n".join(report.lines()))
    assert report.wrong == []
    # The load was one, and the kills hit something.
    assert report.accepted > 400
    assert report.calls["succeeded"] > 200
    assert report.deliveries["succeeded"] > 200
    assert report.calls["ambiguous"] > 4
    assert report.lost_attempts > 20
