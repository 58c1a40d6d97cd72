"""Orders while the daemon is killed and PostgreSQL restarts.

The long form is `python -m tests.acceptance.outbox.campaign`.
"""

from __future__ import annotations

import pytest

from tests.acceptance.outbox.campaign import PLACES, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("place", PLACES)
def test_each_committed_order_is_one_call(
    place: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    report = run(tmp_path_factory.mktemp("k"), place, orders=400, kills=3, restarts=1, seed=3)
    print("\n".join(report.lines()))
    assert report.wrong == []
    assert 200 < report.committed < 400
    assert (report.kills, report.restarts) == (3, 1)
