"""Ordered partitions under kill -9: nothing comes out of order, and nothing is lost.

The long form is `python -m tests.acceptance.queue.order_campaign`.
"""

from __future__ import annotations

import pytest

from tests.acceptance.queue.order_campaign import POSTGRES, SQLITE, WORKERS, Campaign
from tests.postgres import Postgres

UPDATES, PARTITIONS, KILLS = 300, 20, 3


@pytest.mark.slow
@pytest.mark.parametrize("place", [SQLITE, WORKERS, POSTGRES])
def test_no_update_overtakes_another(
    place: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    server: Postgres | None = request.getfixturevalue("postgres") if place == POSTGRES else None
    home = tmp_path_factory.mktemp("o")
    report = Campaign(place, home, server, UPDATES, PARTITIONS, KILLS, seed=20_261_126).run()
    print("\n".join(report.lines()))
    assert report.wrong == []
    assert report.accepted >= UPDATES
    assert report.refused > UPDATES // 10
