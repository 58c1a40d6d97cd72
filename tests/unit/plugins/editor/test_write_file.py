"""Which file is written, whether it can be, and what happens to it meanwhile."""

from __future__ import annotations

import errno
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from config_parts import ConfigFolder
from edit_parts import Editing, webhook
from orchestratord_editor import editor

from orchestratord.config import write_file as target_module
from orchestratord.errors import (
    ConfigError,
    InvalidParams,
    NotFound,
    NotWritable,
    Outdated,
    StorageFull,
    Unconditional,
)

FILE = "path: /x  # why\n"


def test_conditions(config: ConfigFolder) -> None:
    editing = Editing(config, FILE)
    read = editing.read()
    for missing in (None, ""):
        with pytest.raises(Unconditional, match="If-Match"):
            editing.edit([webhook()], etag=missing)
    for wrong in ('"x"', f"W/{read.etag}", read.etag.strip('"')):
        with pytest.raises(Outdated, match=r"apis/shop/endpoints/get\.yaml has changed"):
            editing.edit([webhook()], etag=wrong)
    assert editing.text == FILE
    edit = editing.edit([webhook()], etag=f'"x", {read.etag}')
    assert edit.written
    assert edit.declaration == editing.read()
    with pytest.raises(Outdated):
        editing.edit([], etag=read.etag)
    assert editing.edit([], etag="*").written
    assert editing.text == FILE
    assert editing.read().etag == read.etag


def test_what_is_inherited_is_a_part_of_what_was_read(config: ConfigFolder) -> None:
    editing = Editing(config, FILE)
    etags = [editing.read().etag]
    config.write("apis/shop/api.yaml", "base_url: https://api.example.com\ntimeout: 3s\n")
    assert editing.read().etag == etags[0]
    shared = "webhooks: [{name: a, phase: on_success, url: 'https://a.example.com'}]\n"
    config.write("apis/shop/api.yaml", f"base_url: https://api.example.com\n{shared}")
    etags.append(editing.read().etag)
    config.daemon(f"defaults:\n  {shared.replace('name: a', 'name: b')}")
    etags.append(editing.read().etag)
    assert len(set(etags)) == 3
    inherited = editing.edit([{"name": "a", "enabled": False}]).declaration.inherited
    assert [(one["origin"], one["overridden"], one["item"]["name"]) for one in inherited] == [
        ("orchestratord.yaml:2", False, "b"),
        ("apis/shop/api.yaml:2", True, "a"),
    ]


def test_what_does_not_change_is_not_written(config: ConfigFolder) -> None:
    editing = Editing(config, FILE + "webhooks:\n- {url: https://a.example.com, phase: on_success}")
    before = editing.path.stat()
    edit = editing.edit([dict(reversed(item.items())) for item in editing.items()])
    assert (edit.written, edit.diff) == (False, "")
    assert editing.path.stat() == before


def test_a_dry_run_writes_nothing_and_says_what_would_be(config: ConfigFolder) -> None:
    editing = Editing(config, FILE)
    read = editing.read()
    edit = editing.edit([webhook()], etag=read.etag, dry_run=True)
    assert editing.text == FILE
    assert (edit.written, edit.problems) == (False, ())
    assert edit.diff == (
        f"--- {editing.file}\n+++ {editing.file}\n@@ -1 +1,5 @@\n path: /x  # why\n+webhooks:\n"
        "+  - name: new\n+    phase: on_success\n+    url: https://new.example.com/x\n"
    )
    assert edit.config is not None
    assert [w["name"] for w in edit.config.endpoints["shop/get"].shown["webhooks"]] == ["new"]
    assert editing.read() == read
    bad = editing.edit([webhook(phase="on_sucess")], etag=read.etag, dry_run=True)
    assert bad.config is None
    (problem,) = bad.problems
    assert (problem.file, problem.line, problem.key) == (editing.file, 4, "webhooks.0.phase")
    assert "did you mean 'on_success'?" in problem.message
    with pytest.raises(ConfigError) as caught:
        editing.edit([webhook(phase="on_sucess")], etag=read.etag)
    assert caught.value.problems == bad.problems
    assert editing.loader.config.generation == 1


@pytest.mark.parametrize("value", [None, {}, "x", 7, [1], [[]], [None], [webhook(), "x"]])
def test_what_is_no_list_of_webhooks(config: ConfigFolder, value: Any) -> None:
    with pytest.raises(InvalidParams, match="webhooks"):
        Editing(config, FILE).edit(value)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([webhook(), webhook()], "is taken by the one in line"),
        ([webhook(payload={"x": "y" * (1 << 20)})], "larger than 1048576 bytes"),
        ([webhook(payload={"": 1})], "could not be read afterwards"),
        ([webhook(payload="\ud800")], "manually"),
        ([webhook(colour="red")], "unknown key"),
    ],
)
def test_what_would_not_be_good(config: ConfigFolder, items: list[Any], message: str) -> None:
    editing = Editing(config, FILE)
    with pytest.raises(ConfigError, match=message):
        editing.edit(items)
    assert editing.text == FILE
    deep: Any = 1
    for _ in range(30):
        deep = [deep]
    with pytest.raises(ConfigError, match="nested deeper"):
        editing.edit([webhook(payload={"deep": deep})])


def test_a_folder_with_an_error_elsewhere(config: ConfigFolder) -> None:
    editing = Editing(config, FILE)
    read = editing.read()
    config.write("apis/shop/endpoints/other.yaml", "path: /x\ntimeout: soon\n")
    assert editing.edit([webhook()], etag=read.etag).written  # issue 37: it blocks no edit
    config.write(editing.file, "path: [\n")
    with pytest.raises(ConfigError, match=r"get\.yaml:1:7"):
        editing.read()


def test_names_that_are_none(config: ConfigFolder) -> None:
    editing = Editing(config, FILE)
    for endpoint, key in (
        ("shop/other", "webhooks"), ("other/get", "webhooks"), ("shop", "webhooks"),
        ("shop/../shop/get", "webhooks"), ("../shop/get", "webhooks"),
        ("shop/get.yaml", "webhooks"),
        ("shop/get", "path"), ("shop/get", "retry"), ("shop/get", "hooks"),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            editor.declaration(editing.on_disk(endpoint), key)
        with pytest.raises(NotFound):
            editor.edit(editing.on_disk(endpoint), key, [], etag="*")


def test_links(config: ConfigFolder, tmp_path: Path) -> None:
    editing = Editing(config, FILE)
    outside = tmp_path / "outside.yaml"
    outside.write_text(FILE)
    editing.path.unlink()
    editing.path.symlink_to(outside)
    read = editing.read()
    assert read.reason == f"{editing.file} is a symbolic link that leads out of the config folder"
    assert not read.writable
    with pytest.raises(NotWritable, match="leads out"):
        editing.edit([webhook()])
    assert outside.read_text() == FILE
    # One that stays inside is followed, and stays a link.
    inside = config.write("shared/get.txt", FILE)
    editing.path.unlink()
    editing.path.symlink_to("../../../shared/get.txt")
    assert editing.edit([webhook()]).written
    assert editing.path.is_symlink()
    assert "webhooks:" in inside.read_text()
    # Another file of the configuration is not the endpoint's own.
    other = config.write("apis/shop/endpoints/other.yaml", FILE)
    editing.path.unlink()
    editing.path.symlink_to("other.yaml")
    with pytest.raises(NotWritable, match="are the same file"):
        editing.edit([webhook()])
    assert other.read_text() == FILE


def test_a_folder_that_is_a_link(config: ConfigFolder, tmp_path: Path) -> None:
    editing = Editing(config, FILE)
    config.path.rename(tmp_path / "releases")
    config.path.symlink_to("releases")
    assert editing.edit([webhook()]).written
    # As Kubernetes mounts it: what is read is a link to a link.
    data = config.path / "..2026_11_24"
    (config.path / "apis").rename(data)
    (config.path / "..data").symlink_to(data.name)
    (config.path / "apis").symlink_to("..data")
    assert editing.read().writable
    assert editing.edit([]).written
    assert (config.path / "apis").is_symlink()
    assert editing.text == FILE
    apart = tmp_path / "apart"
    data.rename(apart)
    (config.path / "..data").unlink()
    (config.path / "..data").symlink_to(apart)
    assert "leads out of the config folder" in editing.read().reason


def test_mode_owner_and_attributes_stay(config: ConfigFolder) -> None:
    editing = Editing(config, FILE)
    editing.path.chmod(0o640)
    os.setxattr(editing.path, "user.note", b"kept")
    if os.geteuid() == 0:
        os.chown(editing.path, 1234, 4321)
    before = editing.path.stat()
    assert editing.edit([webhook()]).written
    after = editing.path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode, before.st_uid, before.st_gid
    )  # fmt: skip
    assert os.getxattr(editing.path, "user.note") == b"kept"
    assert [path.name for path in editing.path.parent.iterdir()] == ["get.yaml"]


def test_whoever_writes_meanwhile_wins(
    config: ConfigFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    editing = Editing(config, FILE)
    read = editing.read()
    by_hand = "path: /by-hand\n"

    def fsync(handle: int) -> None:
        editing.path.write_text(by_hand)

    # The last thing before the file is put in its place.
    monkeypatch.setattr(target_module.os, "fsync", fsync)
    with pytest.raises(Outdated, match="has changed"):
        editing.edit([webhook()], etag=read.etag)
    monkeypatch.undo()
    assert editing.text == by_hand
    assert [path.name for path in editing.path.parent.iterdir()] == ["get.yaml"]


def test_a_secret_that_is_inherited_meanwhile(
    config: ConfigFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    editing = Editing(config, FILE, KEY="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    read, genuine = editing.read(), editing.loader.check

    def check(file: str, content: bytes) -> Any:
        found = genuine(file, content)
        shared = (
            "{name: new, phase: on_retry, url: 'https://a.example.com', secret: '${secret:KEY}'}"
        )
        config.api(f"base_url: https://api.example.com\nwebhooks: [{shared}]\n")
        return found

    monkeypatch.setattr(editing.loader, "check", check)
    with pytest.raises(Outdated):
        editing.edit([webhook()], etag=read.etag)
    assert editing.text == FILE


@pytest.fixture
def ordinary() -> Iterator[ConfigFolder]:
    """A folder in which a user without privileges, who runs the test, owns everything."""
    with tempfile.TemporaryDirectory() as folder:
        config = ConfigFolder(Path(folder) / "config")
        root, user = os.geteuid() == 0, 65534
        if root:
            for path in (folder, str(config.path), str(config.path / "apis")):
                os.chown(path, user, user)
            groups = os.getgroups()
            os.setgroups([user])
            os.setegid(user)
            os.seteuid(user)
        try:
            yield config
        finally:
            if root:
                os.seteuid(0)
                os.setegid(0)
                os.setgroups(groups)


def test_what_cannot_be_written(ordinary: ConfigFolder) -> None:
    editing = Editing(ordinary, FILE)
    folder = editing.path.parent
    assert editing.read().writable
    editing.path.chmod(0o444)
    assert editing.read().reason == f"{editing.path} cannot be written by the daemon"
    editing.path.chmod(0o644)
    folder.chmod(0o555)
    assert editing.read().reason == f"{folder} cannot be written by the daemon"
    with pytest.raises(NotWritable, match="cannot be written by the daemon"):
        editing.edit([webhook()])
    # It can be tried all the same.
    assert editing.edit([webhook()], dry_run=True).diff
    folder.chmod(0o755)
    assert editing.edit([webhook()]).written


def test_a_file_of_somebody_else(ordinary: ConfigFolder) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    editing = Editing(ordinary, FILE)
    editing.path.chmod(0o666)
    user = os.geteuid()
    os.seteuid(0)
    os.chown(editing.path, 1234, -1)
    os.seteuid(user)
    assert editing.read().reason == (
        f"{editing.path} belongs to another user or group than the daemon"
    )


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull),
                          (errno.EROFS, NotWritable), (errno.EIO, NotWritable)]
)  # fmt: skip
def test_a_disk_that_takes_no_more(
    config: ConfigFolder, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    editing = Editing(config, FILE)

    def fsync(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(target_module.os, "fsync", fsync)
    with pytest.raises(error, match="cannot be written"):
        editing.edit([webhook()])
    monkeypatch.undo()
    assert editing.text == FILE
    assert [path.name for path in editing.path.parent.iterdir()] == ["get.yaml"]


def saved_by_rename(path: Path, content: bytes) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def saved_in_place(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@pytest.mark.parametrize("save", [saved_by_rename, saved_in_place])
@pytest.mark.parametrize("at", ["_exchange", "read_bytes"])
def test_a_save_at_the_last_moment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Path, bytes], None], at: str
) -> None:
    """Before the file is exchanged, and before what came out is put back."""
    path = tmp_path / "get.yaml"
    path.write_bytes(b"path: /x\n")
    exchange, read, saved = target_module._exchange, Path.read_bytes, []

    def one_more(when: str, count: int) -> None:
        if when == at and len(saved) < count:
            saved.append(b"path: /%d\n" % len(saved))
            save(path, saved[-1])

    def exchanging(one: Path, other: Path) -> bool:
        one_more("_exchange", 2)
        return exchange(one, other)

    def reading(self: Path) -> bytes:
        found = read(self)
        one_more("read_bytes", 1)
        return found

    monkeypatch.setattr(target_module, "_exchange", exchanging)
    monkeypatch.setattr(Path, "read_bytes", reading)
    assert not target_module.replace(path, b"path: /api\n", b"path: /x\n")
    assert read(path) == saved[-1]
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("newer", [None, b"path: /newer\n"])
def test_a_save_that_came_out_stays_where_the_file_is_gone_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newer: bytes | None
) -> None:
    """As where an editor removes a file before it writes it."""
    path = tmp_path / "get.yaml"
    path.write_bytes(b"path: /x\n")
    exchange, calls = target_module._exchange, list[Path]()

    def exchanging(one: Path, other: Path) -> bool:
        calls.append(one)
        if len(calls) == 1:
            saved_by_rename(path, b"path: /mine\n")
            return exchange(one, other)
        path.unlink()
        try:
            return exchange(one, other)
        finally:
            if newer is not None:
                path.write_bytes(newer)

    monkeypatch.setattr(target_module, "_exchange", exchanging)
    assert not target_module.replace(path, b"path: /api\n", b"path: /x\n")
    assert path.read_bytes() == (newer or b"path: /mine\n")
    assert os.listdir(tmp_path) == [path.name]


def test_who_writes_in_place_and_is_not_done_keeps_the_file(tmp_path: Path) -> None:
    path = tmp_path / "get.yaml"
    path.write_bytes(b"path: /x\n")
    with path.open("r+b") as file:
        assert not target_module.replace(path, b"path: /api\n", b"path: /x\n")
        file.write(b"path: /mine\n")
    assert path.read_bytes() == b"path: /mine\n"
    with path.open("rb"):  # who only reads is in nobody's way
        assert target_module.replace(path, b"path: /api\n", b"path: /mine\n")
    assert path.read_bytes() == b"path: /api\n"


@pytest.mark.parametrize("save", [saved_by_rename, saved_in_place])
def test_no_save_by_hand_is_lost(tmp_path: Path, save: Callable[[Path, bytes], None]) -> None:
    """What the program writes names what it has read: what a person saved is there, or in that."""
    path = tmp_path / "get.yaml"
    path.write_bytes(b"0")
    done = threading.Event()
    written = 0

    def edit() -> None:
        nonlocal written
        while not done.is_set():
            read = path.read_bytes()
            written += target_module.replace(path, b"api, read: " + read[-20:], read)

    editing = threading.Thread(target=edit)
    editing.start()
    try:
        lost = []
        for number in range(1, 1500):
            save(path, mine := b"<%d>" % number)
            time.sleep(random.random() / 1000)
            if mine not in path.read_bytes():
                time.sleep(0.1)  # it may be just put back
                lost += [number] if mine not in path.read_bytes() else []
    finally:
        done.set()
        editing.join()
    assert lost == []
    assert written > 10
