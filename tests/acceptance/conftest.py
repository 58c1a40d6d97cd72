"""The fixtures that every acceptance test starts from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import described_api
from tests.acceptance.control import Control
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver

MakeDaemon = Callable[..., Daemon]

Control.checks = (described_api.check,)

_failures: list[str] = []
"""The tests that have failed so far in this process."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        _failures.append(item.nodeid)
    return report


@contextmanager
def _maker(factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[MakeDaemon]:
    failed = len(_failures)

    def make(**settings: Any) -> Daemon:
        settings.setdefault("egress", {"allow": [receiver.address]})
        home: Path = factory.mktemp("d")
        return stack.enter_context(Daemon(home, **settings))

    try:
        with ExitStack() as stack:
            yield make
            # Where a test has failed already, its daemon is ended, shown, and not judged.
            if len(_failures) > failed:
                raise _TestFailed
    except _TestFailed:
        pass


class _TestFailed(Exception):
    pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of the test's own."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def make_daemon(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, receiver: Receiver
) -> Iterator[MakeDaemon]:
    """Make daemons that may call `receiver`; each has to be started.

    They end before `tmp_path` is removed, which may hold what they read.
    """
    with _maker(tmp_path_factory, receiver) as make:
        yield make


@pytest.fixture(scope="module")
def shared_receiver() -> Iterator[Receiver]:
    """A receiver for all tests of a module; each keeps to paths of its own."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def make_shared(
    tmp_path_factory: pytest.TempPathFactory, shared_receiver: Receiver
) -> Iterator[MakeDaemon]:
    """Make daemons for all tests of a module."""
    with _maker(tmp_path_factory, shared_receiver) as make:
        yield make


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """The path of a program that a test talks to.

    Where it is missing the test is skipped, but not in CI (`CI=true`), where it fails.
    """

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            if os.environ.get("CI") == "true":
                pytest.fail(f"{name} is not installed, and CI is to test with it")
            pytest.skip(f"{name} is not installed")
        return path

    return find
