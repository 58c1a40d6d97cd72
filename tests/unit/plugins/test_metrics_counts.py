from __future__ import annotations

from orchestratord_metrics.counts import OTHER, Counts, masked


def test_a_counter() -> None:
    counts = Counts("things", "Things.", ("endpoint", "kind"))
    for _ in range(3):
        counts.add(("a/b", "call"))
    counts.add(("a/b", "webhook"))
    assert counts.copy() == {("a/b", "call"): [3, 0], ("a/b", "webhook"): [1, 0]}


def test_a_histogram() -> None:
    counts = Counts("seconds", "Seconds.", ("kind",), (0.1, 1))
    for seconds in (0.05, 0.1, 0.5, 7):
        counts.add(("call",), seconds)
    # Up to 0.1, which counts itself in; up to 1; more; and the sum.
    assert counts.copy() == {("call",): [2, 1, 1, 7.65]}


def test_one_without_labels() -> None:
    counts = Counts("seconds", "Seconds.", (), (1,))
    counts.add((), 2)
    counts.forget(set())
    assert counts.copy() == {(): [0, 1, 2]}


def test_too_many_endpoints_are_counted_as_others() -> None:
    counts = Counts("things", "Things.", ("endpoint", "kind"), most=2)
    for name in ("a/1", "a/2", "a/3", "a/4", "a/1"):
        counts.add((name, "call"))
    counts.add(("a/5", "webhook"))
    assert counts.copy() == {
        ("a/1", "call"): [2, 0],
        ("a/2", "call"): [1, 0],
        (OTHER, "call"): [2, 0],
        (OTHER, "webhook"): [1, 0],
    }


def test_what_has_no_endpoint_is_not_bounded() -> None:
    counts = Counts("things", "Things.", ("kind",), most=1)
    counts.add(("call",))
    counts.add(("webhook",))
    assert set(counts.copy()) == {("call",), ("webhook",)}


def test_endpoints_that_are_gone_make_room() -> None:
    counts = Counts("things", "Things.", ("endpoint",), most=2)
    for name in ("a/1", "a/2", "a/3"):
        counts.add((name,))
    counts.forget({"a/2"})
    counts.add(("a/3",))
    assert counts.copy() == {("a/2",): [1, 0], (OTHER,): [1, 0], ("a/3",): [1, 0]}


def test_a_copy_stays_as_it_was() -> None:
    counts = Counts("things", "Things.", ("endpoint",))
    counts.add(("a/1",))
    copy = counts.copy()
    counts.add(("a/1",))
    assert copy == {("a/1",): [1, 0]}


def test_label_sets_that_look_the_same_once_they_are_masked_are_one() -> None:
    found = {("a/hunter2",): [1.0, 0.5], ("a/hunter3",): [2.0, 0.25], ("a/b",): [4.0, 1.0]}
    shown = masked(found, lambda text: "***" if "hunter" in text else text)
    assert shown == {("***",): [3.0, 0.75], ("a/b",): [4.0, 1.0]}
