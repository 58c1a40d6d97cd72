"""What each worker may have adds up to what all may have, whatever that is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestratord.engine.lanes.share import Share

COUNTS = st.integers(1, 64)
TOTALS = st.integers(0, 100_000)
NAMES = st.text(max_size=20)


@given(COUNTS, TOTALS, NAMES)
def test_shares_add_up(count: int, total: int, name: str) -> None:
    shares = [Share(number, count).of(total, name) for number in range(1, count + 1)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


@given(COUNTS, st.integers(1, 100), TOTALS, NAMES)
def test_shares_of_lanes_add_up_where_there_are_fewer_slots_than_workers(
    count: int, slots: int, total: int, name: str
) -> None:
    shares = [Share(number, count).bounded(slots).of(total, name) for number in range(1, count + 1)]
    assert sum(shares) == total
    assert all(share == 0 for share in shares[slots:]), "it could have nothing in flight"


def test_a_daemon_without_others_has_everything() -> None:
    assert Share().of(7, "api:shop") == 7


def test_lanes_of_one_slot_are_spread_over_the_workers() -> None:
    workers = [Share(number, 4) for number in range(1, 5)]
    served = [sum(worker.of(1, f"api:{lane}") for lane in range(200)) for worker in workers]
    assert sum(served) == 200
    assert min(served) > 20
