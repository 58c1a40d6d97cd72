from __future__ import annotations

import threading
from pathlib import Path

import pytest
from config_parts import ConfigFolder

from orchestratord.config.loader import AT_START, Loader
from orchestratord.errors import ConfigError
from orchestratord.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


@pytest.fixture
def loader(config: ConfigFolder, clock: FakeClock) -> Loader:
    config.environ = {"TOKEN": "first-secret"}
    config.daemon("log: {level: info}\n")
    config.api("base_url: https://a.example\nauth: {bearer: '${secret:TOKEN}'}\n")
    config.endpoint()
    return Loader(config.path, config.host, environ=config.environ, clock=clock)


def test_the_first_snapshot(loader: Loader) -> None:
    assert loader.config.generation == 1
    assert loader.config.adopted_at == 1_000_000
    assert loader.problems == ()


def test_a_bad_folder_is_refused_at_the_start(config: ConfigFolder) -> None:
    config.endpoint("method: GET\n")
    with pytest.raises(ConfigError, match="path: is required"):
        Loader(config.path, config.host, environ={})


def test_without_a_change_nothing_changes(loader: Loader) -> None:
    before = loader.config
    result = loader.reload("SIGHUP")
    assert (result.changed, result.problems, result.cause) == (False, (), "SIGHUP")
    assert result.config is loader.config is before


def test_a_change_makes_a_whole_new_snapshot(
    config: ConfigFolder, loader: Loader, clock: FakeClock
) -> None:
    before = loader.config
    config.endpoint("path: /y\n")
    config.endpoint(name="new")
    clock.turn(1_000.0)
    result = loader.reload("file change")
    assert result.changed
    assert result.config is loader.config
    assert (loader.config.generation, loader.config.adopted_at) == (2, 2_000_000)
    assert sorted(loader.config.endpoints) == ["shop/get", "shop/new"]
    assert sorted(before.endpoints) == ["shop/get"]
    assert before.endpoints["shop/get"].spec.path.source == "/x"


def test_a_bad_folder_changes_nothing(config: ConfigFolder, loader: Loader) -> None:
    before = loader.config
    config.endpoint("path: /y\nmetod: GET\n")
    config.endpoint(name="new")
    result = loader.reload("file change")
    assert not result.changed
    assert result.config is loader.config is before
    assert [problem.key for problem in result.problems] == ["metod"]
    assert loader.problems == result.problems
    # Back to what it was: not a change, and no problem any more.
    config.endpoint()
    (config.path / "apis/shop/endpoints/new.yaml").unlink()
    result = loader.reload("file change")
    assert (result.changed, result.problems, loader.problems) == (False, (), ())
    assert loader.config is before


def test_a_mended_folder_is_adopted(config: ConfigFolder, loader: Loader) -> None:
    config.endpoint("path: /y\nmetod: GET\n")
    loader.reload("file change")
    config.endpoint("path: /y\nmethod: GET\n")
    assert loader.reload("file change").changed
    assert loader.config.generation == 2


def test_a_folder_that_is_gone_changes_nothing(config: ConfigFolder, loader: Loader) -> None:
    moved = config.path.rename(config.path.with_name("moved"))
    assert "there is no config folder" in loader.reload("file change").problems[0].message
    assert loader.config.endpoints
    moved.rename(config.path)
    assert not loader.reload("file change").problems


def test_a_reference_that_stands_for_something_else_is_a_change(
    config: ConfigFolder, loader: Loader
) -> None:
    config.environ["TOKEN"] = "second-secret"
    result = loader.reload("SIGHUP")
    assert result.changed
    auth = loader.config.apis["shop"].auth
    assert auth is not None
    assert auth.bearer is not None
    assert auth.bearer.reveal() == "second-secret"


def test_old_secrets_stay_secret(config: ConfigFolder, loader: Loader) -> None:
    config.environ["TOKEN"] = "second-secret"
    loader.reload("SIGHUP")
    config.environ["TOKEN"] = "third-secret"
    redactor = loader.reload("SIGHUP").config.redactor
    assert redactor.text("first-secret second-secret third-secret") == "*** *** ***"


def test_a_file_that_is_referred_to(config: ConfigFolder, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("one-secret")
    config.endpoint(f"path: /x\nheaders: {{X-Token: '${{file:{secret}}}'}}\n")
    loader = Loader(config.path, config.host, environ={})
    assert not loader.reload("x").changed
    secret.write_text("another-secret")
    assert loader.reload("x").changed
    secret.unlink()
    assert "cannot be read" in loader.reload("x").problems[0].message


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ("database: sqlite:////elsewhere.db\n", ("database",)),
        ("control_socket: /run/x.sock\n", ("control_socket",)),
        ("workers: 3\n", ("workers",)),
        ("plugins: {disabled: [backoff], timeout: 3s}\n", ("plugins.disabled", "plugins.timeout")),
        ("database: sqlite:////e.db\nplugins: {dirs: [x]}\n", ("database", "plugins.dirs")),
    ],
)
def test_settings_that_take_a_restart_keep_their_value(
    config: ConfigFolder, loader: Loader, settings: str, keys: tuple[str, ...]
) -> None:
    before = loader.config.daemon
    (config.path / "x").mkdir()
    config.daemon(f"log: {{level: debug}}\nconcurrency: 7\n{settings}")
    result = loader.reload("SIGHUP")
    assert result.changed
    assert result.restart_required == keys
    daemon = loader.config.daemon
    assert (daemon.log.level, daemon.concurrency) == ("debug", 7)
    for name in AT_START:
        assert getattr(daemon, name) == getattr(before, name)
    # It is said as long as it is so, and no longer.
    assert loader.reload("SIGHUP").restart_required == keys
    config.daemon("log: {level: debug}\n")
    assert loader.reload("SIGHUP").restart_required == ()


def test_only_what_changed_is_parsed_again(
    config: ConfigFolder, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestratord.config.yaml import blocks

    parsed: list[str] = []
    original = blocks.read_document

    def counting(file: str, content: bytes) -> object:
        parsed.append(file)
        return original(file, content)

    monkeypatch.setattr(blocks, "read_document", counting)
    config.endpoint("path: /y\n")
    config.endpoint(name="new")
    loader.reload("file change")
    assert sorted(parsed) == ["apis/shop/endpoints/get.yaml", "apis/shop/endpoints/new.yaml"]


def test_reloads_from_several_threads_take_turns(config: ConfigFolder, loader: Loader) -> None:
    config.endpoint("path: /y\n")
    changed: list[bool] = []

    def reload() -> None:
        changed.append(loader.reload("x").changed)

    threads = [threading.Thread(target=reload) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(changed) == [False] * 7 + [True]
    assert loader.config.generation == 2


def test_warnings_are_given_beside_errors_and_refuse_nothing(config: ConfigFolder) -> None:
    config.environ = {"TOKEN": "first-secret"}
    config.endpoint()
    loader = Loader(config.path, config.host, environ=config.environ)
    config.api("base_url: https://a.example\nauth: {bearer: written-out}\n")
    config.endpoint("method: GET\n")
    with pytest.raises(ConfigError) as refused:
        config.load()
    assert [problem.severity for problem in refused.value.problems] == ["error", "warning"]
    result = loader.reload("SIGHUP")
    assert [problem.severity for problem in result.problems] == ["error"]
    assert loader.problems == result.problems
