"""Files that the YAML names: where they may be, and that a change of one is a change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from config_parts import ConfigFolder

from orchestratord.config.folder import (
    UNREADABLE,
    KnownFiles,
    combined,
    current_fingerprint,
    read_folder,
)
from orchestratord.config.loader import Loader
from orchestratord.engine.http_executor import HttpBody

SENDS = "path: /x\nmethod: POST\nbody: {file: bodies/order.xml}\n"


def body_of(config: ConfigFolder | Loader) -> HttpBody:
    snapshot = config.config if isinstance(config, Loader) else config.load()
    body = snapshot.endpoints["shop/get"].spec.body
    assert isinstance(body, HttpBody)
    return body


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("order.json", "application/json"),
        ("order.csv", "text/csv"),
        ("order.png", "image/png"),
        ("order", "application/octet-stream"),
        ("order.unheard-of", "application/octet-stream"),
    ],
)
def test_a_body(config: ConfigFolder, name: str, kind: str) -> None:
    config.write(f"bodies/{name}", b"\x00\xffraw {{ text }}")
    config.endpoint(f"path: /x\nmethod: POST\nbody: {{file: bodies/{name}}}\n")
    body = body_of(config)
    assert body.file is not None
    assert (body.file.content, body.content_type) == (b"\x00\xffraw {{ text }}", kind)
    assert config.one().shown["body"] == {"file": f"bodies/{name}"}


def test_a_link_is_followed(config: ConfigFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"linked")
    (config.path / "bodies").mkdir()
    (config.path / "bodies/order.xml").symlink_to(tmp_path / "elsewhere")
    config.endpoint(SENDS)
    file = body_of(config).file
    assert file is not None
    assert file.content == b"linked"


def test_a_large_one_is_refused(config: ConfigFolder) -> None:
    with config.write("bodies/order.xml").open("wb") as file:
        file.truncate((16 << 20) + 1)
    config.endpoint(SENDS)
    assert config.error().endswith("bodies/order.xml is larger than 16777216 bytes")


def test_a_fifo_is_not_waited_for(config: ConfigFolder) -> None:
    (config.path / "bodies").mkdir()
    os.mkfifo(config.path / "bodies/order.xml")
    config.endpoint(SENDS)
    assert config.error().endswith("body.file: bodies/order.xml is not a file")


def test_a_change_of_one_is_a_change(config: ConfigFolder) -> None:
    path = config.write("bodies/order.xml", b"first")
    config.endpoint(SENDS)
    config.endpoint("path: /y\n", "other")
    loader = Loader(config.path, config.host, environ={})
    other = loader.config.endpoints["shop/other"]
    assert loader.config.digest == read_folder(config.path, loader.cache.files).whole
    assert not loader.reload("test").changed

    path.write_bytes(b"second")
    assert loader.config.digest != read_folder(config.path, loader.cache.files).whole
    result = loader.reload("test")
    assert result.changes.changed == ("shop/get",)
    file = body_of(loader).file
    assert file is not None
    assert file.content == b"second"
    assert loader.config.endpoints["shop/other"] is other
    assert loader.config.digest == read_folder(config.path, loader.cache.files).whole

    path.unlink()
    (problem,) = loader.reload("test").problems
    assert str(problem).endswith("bodies/order.xml cannot be read: No such file or directory")
    assert body_of(loader).file == file, "the last good one goes on"
    looked = read_folder(config.path, loader.cache.files).whole
    path.write_bytes(b"third")
    assert read_folder(config.path, loader.cache.files).whole != looked, "what is mended is noticed"
    assert loader.reload("test").changed


def test_a_secret_in_a_file_is_watched(config: ConfigFolder, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("one-secret")
    config.endpoint(f"path: /x\nheaders: {{X-Token: '${{file:{secret}}}'}}\n")
    loader = Loader(config.path, config.host, environ={})
    before = read_folder(config.path, loader.cache.files).whole
    secret.write_text("another-secret")
    assert read_folder(config.path, loader.cache.files).whole != before
    assert loader.reload("test").changed


def test_fingerprints(tmp_path: Path) -> None:
    known, path = KnownFiles(), tmp_path / "file"
    path.write_bytes(b"one")
    first = current_fingerprint(str(path), known)
    assert current_fingerprint(str(path), known) == first
    os.utime(path, (0, 0))
    assert current_fingerprint(str(path), known) == first
    path.write_bytes(b"two")
    assert current_fingerprint(str(path), known) != first
    assert current_fingerprint(str(tmp_path), known) == UNREADABLE


def test_a_digest_with_the_fingerprints_of_others() -> None:
    first = {"file": "one"}
    assert combined("digest", {}) == "digest"
    assert combined("digest", first) != combined("other", first) != "other"
