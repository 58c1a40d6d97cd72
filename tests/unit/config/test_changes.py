from __future__ import annotations

from pathlib import Path

import pytest
from config_parts import WHSEC, ConfigFolder

from orchestratord.config.changes import Changes, Difference, changes, differences
from orchestratord.model.settings import Config


@pytest.fixture
def config(tmp_path: Path) -> ConfigFolder:
    config = ConfigFolder(tmp_path / "config")
    config.endpoint("path: /a\nretry: {max_attempts: 3}\n", "a")
    config.endpoint("path: /b\n", "b")
    return config


def found(before: Config, after: Config) -> list[tuple[object, ...]]:
    return [
        (item.endpoint, item.key, item.before, item.after)
        for item in differences(before, after, changes(before, after))
    ]


def test_nothing_differs(config: ConfigFolder) -> None:
    assert changes(config.load(), config.load()) == Changes()
    assert str(Changes()) == "no endpoint and no setting differs"


def test_endpoints_come_go_and_change(config: ConfigFolder) -> None:
    before = config.load()
    (config.path / "apis/shop/endpoints/b.yaml").unlink()
    config.endpoint("path: /c\n", "c")
    config.endpoint("path: /a\nretry: {max_attempts: 4}\ntimeout: 1m\n", "a")
    after = config.load()
    what = changes(before, after)
    assert what == Changes(("shop/c",), ("shop/b",), ("shop/a",))
    assert str(what) == "1 added (shop/c); 1 removed (shop/b); 1 changed (shop/a)"
    assert found(before, after) == [
        ("shop/a", "timeout", "30s", "1m"),
        ("shop/a", "retry.max_attempts", 3, 4),
    ]


def test_webhooks_are_compared_by_name(config: ConfigFolder) -> None:
    hook = "{{name: {}, phase: on_success, url: 'https://a.example/{}'}}"
    config.endpoint("path: /a\nwebhooks:\n- " + hook.format("x", 1), "a")
    before = config.load()
    config.endpoint(
        "path: /a\nwebhooks:\n- " + hook.format("y", 2) + "\n- " + hook.format("x", 3), "a"
    )
    keys = {item[1]: item[2:] for item in found(before, config.load())}
    assert keys["webhooks.x.url"] == ("https://a.example/1", "https://a.example/3")
    assert keys["webhooks.y"][0] is None
    assert keys["webhooks.y"][1]["url"] == "https://a.example/2"  # type: ignore[index]


def test_a_secret_is_only_said_to_differ(config: ConfigFolder) -> None:
    config.environ["S"] = "one-secret"
    config.endpoint("path: /a\nheaders: {X: '${secret:S}'}\n", "a")
    before = config.load()
    config.environ["S"] = "other-secret"
    assert differences(before, config.load(), changes(before, config.load())) == (
        Difference("shop/a", ""),
    )


def test_settings_are_named_by_their_keys(config: ConfigFolder) -> None:
    before = config.load()
    config.daemon(
        "concurrency: 7\nlog: {level: debug}\ndatabase: sqlite:////var/x.db\n"
        "plugins: {settings: {backoff: {token: abcdef}}}\n"
    )
    after = config.load()
    assert changes(before, after).daemon == (
        "database", "concurrency", "log.level", "plugins.settings",
    )  # fmt: skip
    assert str(changes(before, after)).startswith("settings: database, concurrency")
    assert found(before, after) == [
        ("", "database", "***", "***"),
        ("", "concurrency", 100, 7),
        ("", "log.level", "info", "debug"),
        ("", "plugins.settings", "***", "***"),
    ]


def test_what_is_written_of_a_change_holds_no_secret(config: ConfigFolder) -> None:
    before = config.load()
    config.endpoint(
        "path: /a\nwebhooks:\n- {name: x, phase: on_success, url: 'https://a.example/',"
        f" secret: {WHSEC}}}\n",
        "a",
    )
    assert WHSEC not in repr(found(before, config.load()))
