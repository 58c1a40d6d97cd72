"""`init`, `new` and `schema --write`: what they write is good, and they write over nothing."""

from __future__ import annotations

import grp
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema_rs
import pytest
import yaml

from tests.unit.cli.cli_parts import run

MODELINE = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")


def good(folder: Path) -> str:
    """What `check` says of a folder that it finds nothing wrong with."""
    result = run("check", "--config", folder)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path, made_by_init: Path) -> Path:
    return Path(shutil.copytree(made_by_init, tmp_path / "conf"))


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


# -- init ----------------------------------------------------------------------------------------


def test_init_makes_a_folder_that_is_good(folder: Path) -> None:
    assert good(folder) == f"{folder} is good: 1 API, 1 endpoint\n"
    assert set(tree(folder)) == {
        "orchestratord.yaml",
        "apis/example/api.yaml",
        "apis/example/endpoints/getPage.yaml",
        ".schema/api.json",
        ".schema/daemon.json",
        ".schema/endpoint.json",
        ".dashboard-token",
        ".gitignore",
    }


def test_init_makes_a_token_for_the_dashboard_and_says_it_once(tmp_path: Path) -> None:
    result = run("init", tmp_path / "a")
    file = tmp_path / "a" / ".dashboard-token"
    token = file.read_text().strip()
    assert len(token) >= 40
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"at http://127.0.0.1:8420\n  token: {token}\n" in result.stdout
    assert token not in (tmp_path / "a" / "orchestratord.yaml").read_text()
    assert (tmp_path / "a" / ".gitignore").read_text() == "/.dashboard-token\n"
    assert token not in run("init", tmp_path / "b").stdout


@pytest.mark.parametrize("name", ["a b", "ü", "{x}", 'a"b', "back\\slash"])
def test_init_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    assert run("init", tmp_path / name).exit_code == 0
    result = run("check", "--config", tmp_path / name)
    assert result.exit_code == 0, result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another group")
def test_the_service_can_read_what_root_makes_under_any_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = grp.struct_group(("orchestratord", "", 4242, []))
    monkeypatch.setattr(grp, "getgrnam", {"orchestratord": group}.__getitem__)
    before = os.umask(0o027)
    try:
        assert run("init", tmp_path / "a").exit_code == 0
    finally:
        os.umask(before)
    for path in (tmp_path / "a", *(tmp_path / "a").rglob("*")):
        found = path.stat()
        wanted = 0o050 if path.is_dir() else 0o040
        assert (found.st_gid, found.st_mode & 0o057) == (4242, wanted), path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another group")
def test_the_group_of_the_folder_may_read_the_token(tmp_path: Path) -> None:
    """As /etc/orchestratord is root's, for the group of the daemon."""
    folder = tmp_path / "a"
    folder.mkdir(mode=0o750)
    os.chown(folder, -1, 4242)
    assert run("init", folder).exit_code == 0
    found = (folder / ".dashboard-token").stat()
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (4242, 0o640)


def test_init_says_what_it_wrote_and_what_to_do_next(tmp_path: Path) -> None:
    result = run("init", tmp_path / "a b")
    assert f"wrote {tmp_path}/a b/orchestratord.yaml\n" in result.stdout
    assert f"orchestratord run --config '{tmp_path}/a b'" in result.stdout
    assert "orchestratorctl call example/getPage -p topic=retries --wait" in result.stdout


def test_what_stands_in_the_comments_of_init_is_good_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAMPLE_TOKEN", "a-token-that-is-long")
    monkeypatch.setenv("OPS_HOOK_SECRET", "d2hzZWMgZm9yIGEgdGVzdCBvZiBpbml0")
    opened = 0
    for path in folder.rglob("*.yaml"):
        seen: set[str] = set()
        lines = []
        for line in path.read_text().splitlines():
            key = re.match(r"# (\w+):", line)
            if (key and key[1] not in seen) or re.match(r"#   ( |-) ?\w+: ", line):
                seen.add(key[1] if key else "")
                opened += 1
                line = line[2:]
            lines.append(line)
        path.write_text("\n".join(lines).replace("yaml-language-server:", "# modeline:"))
    assert opened >= 10
    assert good(folder)


def test_init_takes_an_empty_folder_and_no_other(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / ".git").mkdir()
    assert run("init", empty).exit_code == 0
    before = tree(empty)
    result = run("init", empty)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {empty} is not empty; name a new folder, or an empty one\n"
    assert tree(empty) == before
    for name in ("file", ".hidden"):
        other = tmp_path / name
        other.mkdir()
        (other / name).touch()
        assert run("init", other).exit_code == 1
        assert list(tree(other)) == [name]


def test_init_wants_one_folder(tmp_path: Path) -> None:
    assert run("init").exit_code == 2
    assert run("init", tmp_path / "a", "--config", tmp_path / "b").exit_code == 2
    assert list(tmp_path.iterdir()) == []
    assert run("init", "--config", tmp_path / "a").exit_code == 0
    (tmp_path / "file").touch()
    assert run("init", tmp_path / "file").exit_code == 2
    result = run("init", tmp_path / "file" / "below")
    assert result.exit_code == 1
    assert "cannot be written: Not a directory" in result.stderr


# -- new endpoint --------------------------------------------------------------------------------


def test_new_endpoint_of_a_new_api(folder: Path) -> None:
    result = run("new", "endpoint", "shop/getOrder", "--config", folder)
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"wrote {folder}/apis/shop/api.yaml\nwrote {folder}/apis/shop/endpoints/getOrder.yaml\n"
    )
    assert good(folder) == f"{folder} is good: 2 APIs, 2 endpoints\n"


def test_new_endpoint_of_an_api_that_is_there(folder: Path) -> None:
    before = tree(folder)
    assert run("new", "endpoint", "example/a.b-c_1", "--config", folder).exit_code == 0
    after = tree(folder)
    assert set(after) - set(before) == {"apis/example/endpoints/a.b-c_1.yaml"}
    assert {name: after[name] for name in before} == before
    assert good(folder)


def test_new_endpoint_completes_a_folder_that_init_did_not_make(tmp_path: Path) -> None:
    assert run("new", "endpoint", "a/b", "--config", tmp_path).exit_code == 0
    assert (tmp_path / ".schema" / "endpoint.json").is_file()
    assert good(tmp_path)
    (tmp_path / ".schema" / "endpoint.json").write_text("{}")
    assert run("new", "endpoint", "a/c", "--config", tmp_path).exit_code == 0
    assert (tmp_path / ".schema" / "endpoint.json").read_text() == "{}"


DATABASES = "databases: {warehouse: {url: sqlite:///warehouse.db}, other: {url: sqlite:///o.db}}\n"
COMMENTED = re.compile(r"^# ((?:[a-z_]+:|  ).*)$", re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ((), {"method": "GET"}),
        (("--method", "delete"), {"method": "DELETE"}),
        (("--method", "POST"), {"method": "POST", "idempotent": False}),
        (("--method", "PUT"), {"method": "PUT", "idempotent": True}),
        (("--sql",), {"type": "sql", "database": "warehouse"}),
        (("--event",), {"type": "event"}),
    ],
)
def test_new_endpoint_of_each_kind(
    tmp_path: Path, options: tuple[str, ...], keys: dict[str, object]
) -> None:
    (tmp_path / "orchestratord.yaml").write_text(DATABASES)
    assert run("new", "endpoint", "a/b", *options, "--config", tmp_path).exit_code == 0
    assert (tmp_path / "apis/a/api.yaml").exists() is (not {"--sql", "--event"} & {*options})
    assert good(tmp_path)
    shown = run("config", "show", "a/b", "-o", "json", "--config", tmp_path)
    assert json.loads(shown.stdout)["values"].items() >= keys.items()
    # What stands in comments is good as well, all of it, and its test passes.
    file = tmp_path / "apis/a/endpoints/b.yaml"
    text = COMMENTED.sub(r"\1", file.read_text()).replace("idempotent: true\n", "", 1)
    file.write_text(text)
    assert good(tmp_path)
    tested = run("test", "--config", tmp_path)
    assert tested.exit_code == 0, tested.output
    assert "1 passed, 0 failed" in tested.stdout


def test_new_endpoint_for_a_statement_needs_a_database(tmp_path: Path) -> None:
    before = tree(tmp_path)
    result = run("new", "endpoint", "a/b", "--sql", "--config", tmp_path)
    assert result.exit_code == 1
    assert "databases: {warehouse: {url: sqlite:///warehouse.db}}\n" in result.stderr
    assert tree(tmp_path) == before


def test_new_endpoint_leaves_alone_what_is_there(folder: Path) -> None:
    (folder / "apis/example/endpoints/other.json").write_text('{"path": "/"}')
    before = tree(folder)
    for name, file in (("getPage", "getPage.yaml"), ("other", "other.json")):
        result = run("new", "endpoint", f"example/{name}", "--config", folder)
        assert result.exit_code == 1
        assert result.stderr == (
            f"Error: there is an endpoint example/{name} already: "
            f"{folder}/apis/example/endpoints/{file}\n"
        )
    assert tree(folder) == before


@pytest.mark.parametrize(
    "name",
    ["x", "a/b/c", "/b", "a/", "a b/c", "a/é", "../x", "a/..", ".a/b", "a/.b", "a~/b", "a/b~",
     "-a/b", "a/b.yaml", "a/b.json", "a/b\nc", "a/" + 300 * "x", "a/b\0"],
)  # fmt: skip
def test_new_endpoint_refuses_names_that_would_not_be_read(folder: Path, name: str) -> None:
    before = tree(folder)
    result = run("new", "endpoint", "--config", folder, "--", name)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {name!r}")
    assert result.stderr.count("\n") == 1
    assert tree(folder) == before


def test_new_endpoint_refuses_to_write_what_would_not_be_good(folder: Path) -> None:
    (folder / "apis/queries").mkdir()
    (folder / "apis/queries/api.yaml").write_text("concurrency: 3\n")
    before = tree(folder)
    result = run("new", "endpoint", "queries/a", "--config", folder)
    assert result.exit_code == 1
    assert "queries/a would not be good, nothing was written:\n" in result.stderr
    assert "base_url" in result.stderr
    assert tree(folder) == before


def test_new_endpoint_does_not_mind_the_errors_of_others(folder: Path) -> None:
    (folder / "apis/example/api.yaml").write_text(
        "base_url: https://example.com\nauth: {bearer: '${secret:NOT_SET_HERE}'}\n"
    )
    (folder / "apis/example/endpoints/bad.yaml").write_text("pth: /\n")
    assert run("new", "endpoint", "example/b", "--config", folder).exit_code == 0
    (folder / "orchestratord.yaml").write_text("a: [\n")
    result = run("new", "endpoint", "example/c", "--config", folder)
    assert result.exit_code == 78
    assert result.stderr.startswith("orchestratord.yaml:")


def test_new_endpoint_without_a_config_folder(tmp_path: Path) -> None:
    result = run("new", "endpoint", "a/b", "--config", tmp_path / "none")
    assert result.exit_code == 1
    assert f"there is no config folder {tmp_path}/none; `orchestratord init DIR`" in result.stderr


# -- the schema that the files name --------------------------------------------------------------


def validator_of(path: Path) -> jsonschema.Draft202012Validator:
    """By the schema that the file's first line names, as an editor finds it."""
    match = MODELINE.match(path.read_text())
    assert match is not None, f"{path} names no schema"
    schema = json.loads((path.parent / match[1]).read_text())
    jsonschema_rs.meta.validate(schema)
    return jsonschema.Draft202012Validator(schema)


def test_each_file_fits_the_schema_that_it_names(folder: Path) -> None:
    run("new", "endpoint", "shop/getOrder", "--config", folder)
    paths = list(folder.rglob("*.yaml"))
    assert len(paths) == 5
    for path in paths:
        validator_of(path).validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("file", "mistake"),
    [
        ("apis/example/endpoints/getPage.yaml", {"metod": "GET"}),
        ("apis/example/endpoints/getPage.yaml", {"method": "GTE"}),
        ("apis/example/endpoints/getPage.yaml", {"timeout": "soon"}),
        ("apis/example/endpoints/getPage.yaml", {"retry": {"backoff": "expo"}}),
        ("apis/example/endpoints/getPage.yaml", {"base_url": "https://example.com"}),
        ("apis/example/endpoints/getPage.yaml", {"webhooks": [{"phase": "on_sucess"}]}),
        ("apis/example/api.yaml", {"path": "/"}),
        ("apis/example/api.yaml", {"concurrency": 0}),
        ("orchestratord.yaml", {"log": {"level": "loud"}}),
        ("orchestratord.yaml", {"concurency": 5}),
    ],
)
def test_the_schema_that_a_file_names_refuses_mistakes(
    folder: Path, file: str, mistake: dict[str, Any]
) -> None:
    document = yaml.safe_load((folder / file).read_text())
    check = validator_of(folder / file)
    assert check.is_valid(document)
    assert not check.is_valid({**document, **mistake})


def test_schema_write_knows_the_plugins_of_the_folder(folder: Path) -> None:
    before = tree(folder)
    (folder / "orchestratord.yaml").write_text("plugins: {dirs: [plugins]}\n")
    (folder / "plugins").mkdir()
    (folder / "plugins" / "mine.py").write_text(
        "from orchestratord import Setting, hookimpl\n"
        "@hookimpl\ndef register_settings(): return [Setting('mine', int, default=0)]\n"
    )
    page = folder / "apis/example/endpoints/getPage.yaml"
    document = {"path": "/", "mine": 3}
    assert not validator_of(page).is_valid(document)
    result = run("schema", "--write", "--config", folder)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"wrote {folder}/.schema/{kind}.json" for kind in ("endpoint", "api", "daemon")
    ]
    assert validator_of(page).is_valid(document)
    assert not validator_of(page).is_valid({**document, "mine": "three"})
    assert set(tree(folder)) - set(before) == {"plugins/mine.py"}


def test_schema_wants_a_file_or_write(folder: Path) -> None:
    assert run("schema", "--config", folder).exit_code == 2
    assert run("schema", "api", "--write", "--config", folder).exit_code == 2
    result = run("schema", "--write", "--config", folder / "none")
    assert result.exit_code == 1
    assert "cannot be written: No such file or directory" in result.stderr


# -- new plugin ----------------------------------------------------------------------------------


def test_new_plugin_writes_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("new", "plugin", "no-errors_in_200", "--config", tmp_path)
    assert result.exit_code == 0, result.output
    assert set(tree(tmp_path / "orchestratord-no-errors-in-200")) == {
        "README.md",
        "pyproject.toml",
        "orchestratord_no_errors_in_200.py",
        "tests/test_orchestratord_no_errors_in_200.py",
    }
    assert not any(b"@NAME" in text or b"@MOD" in text for text in tree(tmp_path).values())


def test_new_plugin_doubles_no_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("new", "plugin", "orchestratord-first", "--config", tmp_path).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["orchestratord-first"]


def test_new_plugin_is_linted_and_passes_its_own_test(tmp_path: Path) -> None:
    package = tmp_path / "p"
    assert run("new", "plugin", "first", package, "--config", tmp_path).exit_code == 0
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["pytest", "-q"]):
        done = subprocess.run(
            [sys.executable, "-m", *command, *(["--no-cache"] if command[0] == "ruff" else [])],
            cwd=package,
            env={"PYTHONPATH": str(package), "PATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


@pytest.mark.parametrize("name", ["First", "1st", "a b", "a--b", "-a", "a.b", "", "é", "a/b"])
def test_new_plugin_refuses_bad_names(tmp_path: Path, name: str) -> None:
    result = run("new", "plugin", "--config", tmp_path, "--", name, tmp_path / "p")
    assert result.exit_code == 1
    assert f"the name {name!r} cannot be used" in result.stderr
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("name", ["webhooks", "http", "orchestratord", "mine"])
def test_new_plugin_refuses_names_that_are_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "orchestratord.yaml").write_text("plugins: {dirs: [plugins]}\n")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").touch()
    result = run("new", "plugin", name, tmp_path / "p", "--config", tmp_path)
    assert result.exit_code == 1
    assert result.stderr == f"Error: there is a plugin {name} already\n"
    assert not (tmp_path / "p").exists()


def test_new_plugin_leaves_alone_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "pyproject.toml").write_text("mine")
    assert run("new", "plugin", "first", tmp_path / "p", "--config", tmp_path).exit_code == 1
    assert tree(tmp_path / "p") == {"pyproject.toml": b"mine"}
