"""The API under requests made of its description; the long form is `schemathesis_campaign`."""

from __future__ import annotations

import sys

import pytest

from tests.acceptance.api.schemathesis_campaign import run


@pytest.mark.skipif(
    sys.version_info < (3, 12),
    reason="Hypothesis, which it uses, meets a fault of 3.11: AST constructor recursion depth",
)
def test_it_does_what_it_says_of_itself(tmp_path_factory: pytest.TempPathFactory) -> None:
    report = run(tmp_path_factory.mktemp("s"), "--phases", "examples,coverage", "--seed", "1")
    assert report.code == 0, report.text
    assert report.tested >= 30
