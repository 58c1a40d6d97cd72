from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from config_parts import ConfigFolder

from orchestratord.cli.options import folder_of
from orchestratord.config.folder import MAX_BYTES, read_folder


@pytest.mark.parametrize(
    ("option", "environ", "expected"),
    [
        ("/a", {"ORCHESTRATORD_CONFIG": "/b", "CONFIGURATION_DIRECTORY": "/c"}, "/a"),
        (None, {"ORCHESTRATORD_CONFIG": "/b", "CONFIGURATION_DIRECTORY": "/c"}, "/b"),
        (None, {"CONFIGURATION_DIRECTORY": "/c"}, "/c"),
        (None, {"CONFIGURATION_DIRECTORY": "/c:/d"}, "/c"),
        (None, {"ORCHESTRATORD_CONFIG": "", "CONFIGURATION_DIRECTORY": ""}, "/etc/orchestratord"),
        (None, {}, "/etc/orchestratord"),
    ],
)
def test_which_folder(option: str | None, environ: dict[str, str], expected: str) -> None:
    assert folder_of(option, environ) == Path(expected)


def test_a_relative_folder_is_one_below_the_working_directory() -> None:
    assert folder_of("conf", {}) == Path.cwd() / "conf"


def test_ids_come_from_paths(config: ConfigFolder) -> None:
    config.daemon("")
    config.write("apis/salesforce/api.yml", "")
    config.write("apis/salesforce/endpoints/getUsers.yaml")
    config.write("apis/salesforce/endpoints/a.b-c_d.yml")
    config.write("apis/other/endpoints/x.json")
    files = read_folder(config.path)
    assert not files.problems
    assert files.daemon == "orchestratord.yaml"
    assert files.apis == {"salesforce": "apis/salesforce/api.yml", "other": None}
    assert files.endpoints == {
        "salesforce/getUsers": "apis/salesforce/endpoints/getUsers.yaml",
        "salesforce/a.b-c_d": "apis/salesforce/endpoints/a.b-c_d.yml",
        "other/x": "apis/other/endpoints/x.json",
    }


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.yaml",
        ".#get.yaml",
        "get.yaml~",
        "get.yaml.swp",
        "#get.yaml#",
        "README.md",
        ".yaml",
    ],
)
def test_what_is_passed_over(config: ConfigFolder, name: str) -> None:
    config.write(f"apis/shop/endpoints/{name}", "certainly: [not")
    config.write(f"apis/shop/{name}", "certainly: [not")
    config.write(f"apis/{name}", "certainly: [not")
    config.write(name, "certainly: [not")
    files = read_folder(config.path)
    assert (files.problems, files.endpoints, files.contents) == ([], {}, {})


def test_hidden_folders_are_passed_over(config: ConfigFolder) -> None:
    config.write("apis/..2026_11_24/endpoints/get.yaml", "x")
    config.write("apis/shop/.git/config.yaml", "x")
    config.write("apis/shop/endpoints/.old/get.yaml", "x")
    files = read_folder(config.path)
    assert (files.problems, files.endpoints) == ([], {})


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (
            "apis/shop/endpoints/v1/get.yaml",
            "apis/shop/endpoints/v1: a folder too deep; endpoints stand in apis/shop/endpoints, "
            "flat",
        ),
        (
            "apis/shop/v1/get.yaml",
            "apis/shop/v1: a folder too deep; endpoints stand in apis/shop/endpoints, flat",
        ),
        (
            "apis/shop/get.yaml",
            "apis/shop/get.yaml: this file is not read; endpoints stand in apis/shop/endpoints",
        ),
        ("apis/shop.yaml", "apis/shop.yaml: an API is a folder: apis/shop/api.yaml"),
        (
            "apis/shop/endpoints/get users.yaml",
            "apis/shop/endpoints/get users.yaml: the name 'get users' cannot be used: a name is "
            "made of letters, digits, '.', '_' and '-', and begins with a letter or digit",
        ),
        (
            "apis/-shop/endpoints/get.yaml",
            "apis/-shop: the name '-shop' cannot be used: a name is made of letters, digits, "
            "'.', '_' and '-', and begins with a letter or digit",
        ),
    ],
)
def test_what_stands_at_the_wrong_place(config: ConfigFolder, file: str, problem: str) -> None:
    config.write(file, "path: /x")
    files = read_folder(config.path)
    assert [str(found) for found in files.problems] == [problem]
    assert not files.endpoints


def test_the_same_thing_twice(config: ConfigFolder) -> None:
    for suffix in ("json", "yaml", "yml"):
        config.write(f"apis/shop/endpoints/get.{suffix}", "{}")
    for suffix in ("yaml", "yml"):
        config.write(f"apis/shop/api.{suffix}", "{}")
        config.write(f"orchestratord.{suffix}", "{}")
    assert [str(found) for found in read_folder(config.path).problems] == [
        "orchestratord.yml: the same settings as orchestratord.yaml: keep one",
        "apis/shop/api.yml: the same API as apis/shop/api.yaml: keep one of them",
        "apis/shop/endpoints/get.yaml: the same endpoint shop/get as "
        "apis/shop/endpoints/get.json: keep one of them",
        "apis/shop/endpoints/get.yml: the same endpoint shop/get as "
        "apis/shop/endpoints/get.json: keep one of them",
    ]


def test_a_misspelt_settings_file_is_a_warning(config: ConfigFolder) -> None:
    config.write("orchestrator.yaml", "x: 1")
    config.write("docker-compose.yaml", "x: 1")
    assert config.warnings() == [
        "orchestrator.yaml: this file is not read; the settings are orchestratord.yaml"
    ]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    config = ConfigFolder(tmp_path / "config")
    shutil.rmtree(config.path)
    assert config.error() == (
        f"there is no config folder {config.path}; name one with --config DIR or "
        "$ORCHESTRATORD_CONFIG"
    )


def test_an_empty_folder_is_good(config: ConfigFolder) -> None:
    loaded = config.load()
    assert not loaded.endpoints
    assert loaded.daemon.concurrency == 100


def test_files_that_cannot_be_read(config: ConfigFolder) -> None:
    endpoints = config.path / "apis/shop/endpoints"
    config.endpoint(name="good")
    (endpoints / "dangling.yaml").symlink_to("nowhere")
    os.mkfifo(endpoints / "fifo.yaml")
    (endpoints / "large.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    (endpoints / "loop.yaml").symlink_to("loop.yaml")
    assert config.errors() == [
        "apis/shop/endpoints/dangling.yaml: a symbolic link to a file that does not exist",
        "apis/shop/endpoints/fifo.yaml: not a file that can be read: it is something else",
        "apis/shop/endpoints/large.yaml: larger than 1048576 bytes (1 MiB): split it",
        "apis/shop/endpoints/loop.yaml: cannot be read: Too many levels of symbolic links",
    ]


def test_a_file_of_exactly_1_mib_is_read(config: ConfigFolder) -> None:
    text = b"path: /x\n#"
    config.endpoint()
    config.write("apis/shop/endpoints/get.yaml", text + b"x" * (MAX_BYTES - len(text)))
    assert config.one().id == "shop/get"


def test_a_configmap_is_read_through_its_symlinks(config: ConfigFolder) -> None:
    config.write("..2026/get.yaml", "path: /x")
    endpoints = config.path / "apis/shop/endpoints"
    endpoints.mkdir(parents=True)
    (config.path / "..data").symlink_to("..2026")
    (endpoints / "get.yaml").symlink_to("../../../..data/get.yaml")
    config.api()
    assert config.one().id == "shop/get"


def test_apis_that_is_no_folder(config: ConfigFolder) -> None:
    (config.path / "apis").rmdir()
    config.write("apis", "x")
    assert config.error() == "apis: cannot be read: Not a directory"


def test_names_that_no_terminal_shows(config: ConfigFolder) -> None:
    folder = config.path / "apis/shop/endpoints"
    folder.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(folder) + b"/a\xff\x1b[31m.yaml")).write_text("path: /x")
    assert config.error().startswith("apis/shop/endpoints/a\\xff\\x1b[31m.yaml: the name")


class TestDigest:
    @pytest.fixture
    def before(self, config: ConfigFolder) -> str:
        config.daemon("log: {level: info}\n")
        config.endpoint()
        return read_folder(config.path).digest

    def test_it_is_the_same_for_the_same_content(self, config: ConfigFolder, before: str) -> None:
        config.endpoint()
        config.write("plugins/own.py", "print()")
        config.write("apis/shop/endpoints/.hidden.yaml", "x")
        assert read_folder(config.path).digest == before

    def test_it_follows_content_names_and_problems(self, config: ConfigFolder, before: str) -> None:
        seen = {before}
        for change in (
            lambda: config.endpoint("path: /y\n"),
            lambda: config.endpoint(name="other"),
            lambda: (config.path / "apis/shop/endpoints/other.yaml").unlink(),
            lambda: config.write("apis/shop/endpoints/deep/x.yaml"),
        ):
            change()
            seen.add(read_folder(config.path).digest)
        # The third change leads back to what the first one made.
        assert len(seen) == 4

    def test_bytes_that_move_between_files_are_a_change(self, config: ConfigFolder) -> None:
        digests = set()
        for first, second in ((b"ab", b"c"), (b"a", b"bc")):
            config.write("apis/shop/endpoints/a.yaml", first)
            config.write("apis/shop/endpoints/b.yaml", second)
            digests.add(read_folder(config.path).digest)
        assert len(digests) == 2


def test_a_folder_without_apis_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "orchestratord.yaml").write_text("concurrency: 3\n")
    [problem] = read_folder(tmp_path).problems
    assert (problem.file, problem.severity) == ("apis", "error")
    assert "apis/API/endpoints/NAME.yaml" in problem.message
    (tmp_path / "apis").mkdir()
    assert read_folder(tmp_path).problems == []
