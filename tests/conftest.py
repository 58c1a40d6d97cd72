"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orchestratord_webhooks
import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import Postgres, programs

# Collecting makes hundreds of thousands of objects that stay; looking through them again and again
# would be a third of it.
gc.disable()

# How long an example takes says something about the machine, and nothing about the code.
quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("project", quick)
# Without `--all`.
settings.register_profile("newcomer", quick, max_examples=25)
settings.register_profile("campaign", quick, max_examples=2_000)
settings.load_profile("project")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all",
        action="store_true",
        help="slow tests, too, and more random examples, as CI runs them",
    )


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.option.all = config.workerinput["all"]
    elif config.args_source is not config.ArgsSource.TESTPATHS:
        config.option.all = True  # what is named is run
    if not config.option.all and settings.get_current_profile_name() == "project":
        settings.load_profile("newcomer")
    # A shell that runs the tests in the background has them ignore SIGINT, and so would the
    # programs that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """In a new clone, compile the tests once; each process of `-n` would compile all of them."""
    tests = Path(__file__).parent
    tag = f"{sys.implementation.cache_tag}-pytest-{pytest.__version__}"
    compiled = tests / "__pycache__" / f"test_house.{tag}.pyc"
    writes = not (sys.dont_write_bytecode or sys.pycache_prefix)
    if config.args_source is not config.ArgsSource.TESTPATHS or not writes or compiled.exists():
        return
    collect = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"]
    halves = [tests / "unit"], [tests, f"--ignore={tests / 'unit'}"]
    runs = [
        subprocess.Popen([*collect, "--collect-only", *half], stdout=subprocess.DEVNULL)
        for half in halves
    ]
    try:
        for run in runs:
            run.wait()
    finally:
        for run in runs:
            run.terminate()


def pytest_configure_node(node: Any) -> None:
    """A process of `-n` runs what the one that began it would run."""
    node.workerinput["all"] = node.config.option.all


def pytest_xdist_auto_num_workers() -> int:
    """With `-n auto`: more than there are cores, since many tests wait for processes and times.

    On two cores, the README's tests took 308 s by four of them, and 251 s by six.
    """
    return max(6, os.cpu_count() or 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests that are not asked for.

    Files are in the order of their folders, so that what waits for long begins before the unit
    tests, which fill the rest; before all others the files that take minutes by themselves.
    """
    if not config.option.all:
        out = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=out)
        left = set(out)
        items[:] = [item for item in items if item not in left]
    long = {"test_plants.py", "test_simulation.py", "test_docs_outputs.py"}
    items.sort(key=lambda item: item.path.name not in long)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what this run left out."""
    if not terminalreporter.config.option.all:
        terminalreporter.write_line(
            "The slow tests were left out (most daemons, kills, fleets, workers that share a file, "
            "clocks that jump): `--all` runs them, too."
        )


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def webhooks_that_nobody_disabled() -> Iterator[None]:
    """A process has the plugin once; what one test's webhooks went through is none of another's."""
    yield
    orchestratord_webhooks.health.__init__(time.time)  # type: ignore[misc]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL for all tests of a run. Where none is installed they are skipped, but in CI."""
    if programs() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is not installed, and CI is to test with it")
        pytest.skip("PostgreSQL is not installed")
    with Postgres() as server:
        yield server
