"""Public OpenAPI documents, imported and called; the long form is `openapi_campaign`."""

from __future__ import annotations

import os

import pytest

from tests.acceptance.commands.openapi_campaign import missing, run

PARTS = {"figma": (3, 6), "kubernetes": (0, 40), "github": (0, 40)}
"""Which part of its paths is served of each document, and of how many."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_no_request_misses_its_document(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if missing():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI is to test with {missing()}")
        pytest.skip(f"there is no {missing()[0]}")
    report = run(name, tmp_path_factory.mktemp("o"), PARTS[name])
    print(report.line())
    assert report.wrong == []
    assert report.succeeded >= report.called - 2 >= 5
