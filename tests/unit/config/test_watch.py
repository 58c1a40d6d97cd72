from __future__ import annotations

import logging
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from config_parts import ConfigFolder
from watchdog.observers.api import BaseObserver

from orchestratord.config import watch
from orchestratord.config.folder import Files, KnownFiles, read_folder
from orchestratord.config.watch import CHANGED, POLLED, Watcher

SOON = 10.0
"""Seconds within which a change must have been noticed; it takes a fraction of one."""
QUIET = 0.45
"""Seconds in which nothing may be told."""


class Watched:
    """A folder with a watcher, and the causes that it told."""

    def __init__(self, config: ConfigFolder, **options: Any) -> None:
        self.config = config
        self.told: queue.Queue[str] = queue.Queue()
        self.watcher = Watcher(config.path, self.told.put, **{"debounce": 0.15, **options})

    def change(self) -> str:
        """The next change that is told; it must come."""
        return self.told.get(timeout=SOON)

    def quiet(self) -> bool:
        """True where nothing is told."""
        try:
            self.told.get(timeout=QUIET)
        except queue.Empty:
            return True
        return False


@pytest.fixture
def start(config: ConfigFolder) -> Iterator[Callable[..., Watched]]:
    started: list[Watched] = []
    config.daemon("concurrency: 5\n")
    config.endpoint()

    def begin(**options: Any) -> Watched:
        watched = Watched(config, **options)
        watched.watcher.start()
        started.append(watched)
        return watched

    yield begin
    for watched in started:
        watched.watcher.stop()
    assert [thread.name for thread in threading.enumerate() if thread.name == "config-watch"] == []


@pytest.fixture
def watched(start: Callable[..., Watched]) -> Watched:
    # The poll is out of the way: what these tests see, they see by events.
    return start(poll=3600.0)


def save_by_rename(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.rename(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: folder.endpoint("path: /saved-in-place\n"),
        lambda folder: save_by_rename(
            folder.path / "apis/shop/endpoints/get.yaml", "path: /renamed\n"
        ),
        lambda folder: folder.endpoint(name="new"),
        lambda folder: folder.endpoint(name="new", api="another"),
        lambda folder: (folder.path / "apis/shop/endpoints/get.yaml").unlink(),
        lambda folder: shutil.rmtree(folder.path / "apis/shop"),
        lambda folder: (folder.path / "apis").rename(folder.path / "no-apis"),
        lambda folder: folder.write("apis/shop/endpoints/get.yaml~", "") and folder.daemon(""),
        lambda folder: folder.write("apis/shop/endpoints/bad name.yaml", ""),
    ],
    ids=["in place", "rename", "new", "new api", "gone", "api gone", "moved", "backup", "problem"],
)
def test_changes_are_told_once(watched: Watched, change: Callable[[ConfigFolder], object]) -> None:
    change(watched.config)
    assert watched.change() == CHANGED
    assert watched.quiet()


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: read_folder(folder.path),
        lambda folder: folder.load(),
        lambda folder: folder.endpoint(),
        lambda folder: save_by_rename(folder.path / "orchestratord.yaml", "concurrency: 5\n"),
        lambda folder: os.utime(folder.path / "orchestratord.yaml", (0, 0)),
        lambda folder: folder.write("state/orchestratord.db", b"x" * 4096),
        lambda folder: folder.write("plugins/own.py", "print()"),
        lambda folder: folder.write("apis/shop/endpoints/.get.yaml.swp", "x"),
        lambda folder: folder.write("apis/shop/endpoints/get.yaml~", "x"),
    ],
    ids=["read", "load", "same", "same renamed", "touch", "database", "plugin", "swap", "backup"],
)
def test_what_is_no_change_is_not_told(
    watched: Watched, change: Callable[[ConfigFolder], object]
) -> None:
    change(watched.config)
    assert watched.quiet()


def test_a_named_file_that_is_written_in_place_is_told_at_once(
    config: ConfigFolder, start: Callable[..., Watched]
) -> None:
    path = config.write("bodies/order.xml", b"first")
    files = KnownFiles()
    files.attached = frozenset({str(path)})
    watched = start(poll=3600.0, files=files)
    path.write_bytes(b"second")
    assert watched.change() == CHANGED
    assert watched.quiet()


def test_reading_does_not_cause_reading(
    config: ConfigFolder, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []

    def counting(folder: Path, *others: Any) -> Files:
        looks.append(folder)
        return read_folder(folder, *others)

    monkeypatch.setattr(watch, "read_folder", counting)
    config.endpoint("path: /y\n")
    watched.change()
    config.load()
    assert watched.quiet()
    assert len(looks) == 1


def test_a_configmap_is_swapped(config: ConfigFolder, start: Callable[..., Watched]) -> None:
    endpoint = config.path / "apis/shop/endpoints/get.yaml"
    endpoint.unlink()
    config.write("..1/get.yaml", "path: /one\n")
    config.write("..2/get.yaml", "path: /two\n")
    data = config.path / "..data"
    data.symlink_to("..1")
    endpoint.symlink_to("../../../..data/get.yaml")
    watched = start(poll=3600.0)
    temporary = config.path / "..data_tmp"
    temporary.symlink_to("..2")
    temporary.rename(data)
    assert watched.change() == CHANGED
    assert watched.quiet()


def test_the_folder_itself_is_replaced(config: ConfigFolder, watched: Watched) -> None:
    other = ConfigFolder(config.path.with_name("other"))
    other.endpoint("path: /other\n")
    config.path.rename(config.path.with_name("old"))
    other.path.rename(config.path)
    watched.change()
    # The new one is watched, too.
    while not watched.quiet():
        pass
    config.endpoint("path: /after\n")
    assert watched.change() == CHANGED


def test_the_folder_goes_and_comes_back(config: ConfigFolder, watched: Watched) -> None:
    shutil.rmtree(config.path)
    watched.change()
    while not watched.quiet():
        pass
    config.endpoint("path: /back\n")
    watched.change()
    while not watched.quiet():
        pass
    config.endpoint("path: /after\n")
    assert watched.change() == CHANGED


def test_the_folder_is_a_symlink_that_is_swapped(tmp_path: Path) -> None:
    first, second = ConfigFolder(tmp_path / "1"), ConfigFolder(tmp_path / "2")
    first.endpoint("path: /one\n")
    second.endpoint("path: /two\n")
    link = tmp_path / "link"
    link.symlink_to("1")
    watched = Watched(ConfigFolder(link), poll=3600.0)
    watched.watcher.start()
    try:
        (tmp_path / "new").symlink_to("2")
        (tmp_path / "new").rename(link)
        assert watched.change() == CHANGED
    finally:
        watched.watcher.stop()


def test_a_burst_is_told_as_one(config: ConfigFolder, start: Callable[..., Watched]) -> None:
    watched = start(debounce=0.3, poll=3600.0)
    for number in range(50):
        config.endpoint(f"path: /{number}\n", name=f"e{number}")
    watched.change()
    assert watched.quiet()


def test_events_without_an_end_do_not_keep_a_change_back(
    config: ConfigFolder, start: Callable[..., Watched]
) -> None:
    watched = start(debounce=0.2, poll=3600.0)
    done = threading.Event()

    def churn() -> None:
        while not done.wait(0.02):
            config.write("noise", b"")
            (config.path / "noise").unlink()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        config.endpoint("path: /changed\n")
        assert watched.change() == CHANGED
    finally:
        done.set()
        thread.join()


def test_a_poll_does_not_look_into_the_midst_of_a_burst(config: ConfigFolder) -> None:
    watcher = Watcher(config.path, print, debounce=0.03, poll=0.01)
    watcher._burst.note()
    watcher._burst.last += 60  # more events come than it lasts
    began = time.monotonic()
    assert watcher._wait()
    assert time.monotonic() - began >= 10 * 0.03 - 0.01


class NoEvents:
    """The system has no watches left."""

    def __call__(self) -> BaseObserver:
        raise OSError(28, "inotify watch limit reached")


def test_without_events_the_poll_serves(
    config: ConfigFolder,
    start: Callable[..., Watched],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watch, "Observer", NoEvents())
    with caplog.at_level(logging.WARNING, "orchestratord.config.watch"):
        watched = start(poll=0.1)
        assert watched.quiet()
        config.endpoint("path: /polled\n")
        assert watched.change() == POLLED
        config.endpoint("path: /again\n")
        assert watched.change() == POLLED
    assert [record.message for record in caplog.records] == [
        f"no file events come from {config.path}: inotify watch limit reached; the folder is "
        "polled every 0.1 s (raise fs.inotify.max_user_watches for events)"
    ]


def test_a_dead_emitter_is_replaced_by_the_poll(
    config: ConfigFolder, start: Callable[..., Watched]
) -> None:
    watched = start(poll=0.2)
    assert watched.quiet()
    observer = watched.watcher._observer
    assert observer is not None
    for emitter in observer.emitters:
        emitter.stop()
        emitter.join()
    config.endpoint("path: /polled\n")
    assert watched.change() == POLLED
    assert watched.watcher._observer is not observer
    assert watched.watcher._alive()


def test_a_callback_that_raises_does_not_end_the_watching(config: ConfigFolder) -> None:
    config.endpoint()
    told: queue.Queue[str] = queue.Queue()

    def failing(cause: str) -> None:
        told.put(cause)
        raise RuntimeError("meant")

    watcher = Watcher(config.path, failing, debounce=0.05, poll=3600.0)
    watcher.start()
    try:
        for path in ("/a", "/b"):
            config.endpoint(f"path: {path}\n")
            assert told.get(timeout=SOON) == CHANGED
    finally:
        watcher.stop()


def test_what_changed_before_the_start_is_told(config: ConfigFolder) -> None:
    config.endpoint()
    digest = config.load().digest
    config.endpoint("path: /meanwhile\n")
    told: queue.Queue[str] = queue.Queue()
    watcher = Watcher(config.path, told.put, known=lambda: digest, debounce=0.05, poll=0.1)
    watcher.start()
    try:
        assert told.get(timeout=SOON) == CHANGED
    finally:
        watcher.stop()


def test_what_somebody_else_has_read_meanwhile_is_not_told(config: ConfigFolder) -> None:
    config.endpoint()
    known = config.load().digest
    told: queue.Queue[str] = queue.Queue()
    watcher = Watcher(config.path, told.put, known=lambda: known, debounce=0.3, poll=3600.0)
    watcher.start()
    try:
        config.endpoint("path: /reloaded\n")
        known = config.load().digest
        with pytest.raises(queue.Empty):
            told.get(timeout=0.3 + QUIET)
        config.endpoint("path: /after\n")
        assert told.get(timeout=SOON) == CHANGED
    finally:
        watcher.stop()


def test_nothing_is_told_after_the_end(config: ConfigFolder) -> None:
    config.endpoint()
    watched = Watched(config, poll=0.05)
    watched.watcher.start()
    watched.watcher.stop()
    config.endpoint("path: /late\n")
    assert watched.quiet()
    watched.watcher.stop()
