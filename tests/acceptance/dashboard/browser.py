"""A real browser for tests of pages: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.waiting import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

AXE = Path(__file__).parents[3] / "node_modules" / "axe-core" / "axe.min.js"
"""What finds barriers; `npm install --no-save axe-core` puts it there."""

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """The browser's path; the test is skipped where there is none, and fails in CI."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed, and CI is to test with it")
        pytest.skip("chromium is not installed")
    return path


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser without a window."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), headless=True, args=list(ARGUMENTS)
        )
        yield browser
        browser.close()


def axe(page: Page) -> list[str]:
    """The barriers that axe-core finds on a page, with their places."""
    if not AXE.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("axe-core is not installed, and CI is to test with it")
        pytest.skip("axe-core is not installed")
    # By the debugger, which no policy of the page forbids.
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


def playwright_or_skip() -> None:
    """Skip a module where Playwright is not installed: on Python 3.11; elsewhere CI fails."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        if os.environ.get("CI") == "true" and sys.version_info >= (3, 12):
            raise
        pytest.skip("playwright is not installed", allow_module_level=True)
