"""Which folders `files` may name, and what endpoints may do with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_parts import ConfigFolder

UPLOAD = "method: PUT\npath: /x\nparams: {p: {}}\nbody: {file: '{{ params.p }}'}\n"


@pytest.fixture
def config(tmp_path: Path) -> ConfigFolder:
    config = ConfigFolder(tmp_path / "config")
    for name in ("files", "state", "credentials", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "state/files").mkdir()
    config.environ = {
        "STATE_DIRECTORY": str(tmp_path / "state"),
        "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"),
        "RUNTIME_DIRECTORY": str(tmp_path / "run"),
    }
    (tmp_path / "credentials/key").write_text("a-secret-key")
    return config


@pytest.mark.parametrize("key", ["read", "write"])
@pytest.mark.parametrize(
    ("folder", "error"),
    [
        ("files", "expected an absolute path, such as /srv/exports"),
        ("/", "holds "),
        ("TMP", "holds the configuration: name a folder of its own"),
        ("TMP/config", "holds the configuration"),
        ("TMP/config/apis", "holds the configuration"),
        ("TMP/files/../config", "holds the configuration"),
        ("TMP/link", "holds the configuration"),
        ("TMP/state", "holds the daemon's state"),
        ("TMP/run", "holds the daemon's state"),
        ("TMP/credentials", "holds credentials"),
        ("TMP/credentials/x", "holds credentials"),
        ("/proc/self", "holds files of the system"),
        ("{{ params.x }}", "takes no template"),
    ],
)
def test_a_folder_that_holds_something_else(
    config: ConfigFolder, tmp_path: Path, key: str, folder: str, error: str
) -> None:
    (tmp_path / "link").symlink_to(config.path)
    folder = folder.replace("TMP", str(tmp_path))
    config.daemon(f"files:\n  {key}: ['{folder}']\n")
    config.endpoint()
    place = f"orchestratord.yaml:2:{len(key) + 6}: files.{key}.0: "
    assert any(told.startswith(place + error) for told in config.errors()), config.errors()


def test_a_folder_that_holds_what_a_reference_names(config: ConfigFolder, tmp_path: Path) -> None:
    (tmp_path / "files/token").write_text("a-secret-token\n")
    config.daemon(f"files: {{read: ['{tmp_path}/files']}}\n")
    config.api(
        f"base_url: https://a.example\nauth: {{bearer: '${{file:{tmp_path}/files/token}}'}}\n"
    )
    config.endpoint()
    (error,) = config.errors()
    said = f"{tmp_path}/files holds {tmp_path}/files/token, which the configuration reads"
    assert error == f"orchestratord.yaml:1:1: files: {said}"


def test_folders_that_can_be_used(config: ConfigFolder, tmp_path: Path) -> None:
    write = f"write: ['{tmp_path}/state/files'], max_file: 2MiB"
    config.daemon(f"files: {{read: ['{tmp_path}/files'], {write}}}\n")
    save = f"save: {{folder: '{tmp_path}/state/files', name: '{{{{ params.p }}}}'}}\n"
    config.endpoint(UPLOAD + save)
    assert config.warnings() == []
    assert config.load().daemon.files.max_file == 2 << 20


def test_what_is_warned_of(config: ConfigFolder, tmp_path: Path) -> None:
    config.daemon(f"database: postgresql://db/queue\nfiles: {{write: ['{tmp_path}/none']}}\n")
    config.endpoint()
    first, second = config.warnings()
    assert first.endswith("files: each daemon that works on the queue has to have these folders")
    assert second.endswith("files.write.0: there is no such folder here")


@pytest.mark.parametrize(
    ("endpoint", "error"),
    [
        (UPLOAD, "4:8: body.file: sends files, and none may be read: name folders in files.read"),
        (
            "method: POST\npath: /x\nbody: {multipart: {a: {path: '/x'}}}\n",
            "3:8: body.multipart: sends files, and none may be read",
        ),
        (
            "method: POST\npath: /x\nheaders: {content-type: x}\nbody: {multipart: {a: b}}\n",
            "3:1: headers: Content-Type is set by the client itself for multipart",
        ),
        ("path: /x\nsave: {folder: /srv, name: a}\n", "2:8: save.folder: is no folder of files"),
        ("path: /x\nsave: {folder: /srv}\n", "2:1: save.name: is required"),
        (
            "path: /x\nsave: {folder: /srv, name: a/b}\n",
            "2:22: save.name: 'a/b' is not the name of a file in a folder",
        ),
        (
            "method: POST\npath: /x\nbody: {multipart: {a: {file: b}}}\n",
            "body.multipart.a.file: unknown key",
        ),
        (
            UPLOAD.replace("params.p }}", "params.q }}"),
            "4:8: body.file: 'params.q' is not",
        ),
        (
            "path: /x\nsave: {folder: /srv, name: '{{ params.q }}'}\n",
            "2:22: save.name: 'params.q' is not declared",
        ),
    ],
)
def test_what_an_endpoint_cannot_do(config: ConfigFolder, endpoint: str, error: str) -> None:
    config.endpoint(endpoint)
    assert any(error in told for told in config.errors()), config.errors()


def test_a_form_without_files_reads_none(config: ConfigFolder) -> None:
    config.endpoint("method: POST\npath: /x\nbody: {multipart: {a: b}}\n")
    assert config.warnings() == []
