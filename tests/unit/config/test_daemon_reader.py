"""Keys that plugins add to orchestratord.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from config_parts import ConfigFolder, host_of

from orchestratord import DaemonSetting, Model, hookimpl
from orchestratord.config.loader import Loader
from orchestratord.config.show.json_schema import json_schema
from orchestratord.errors import PluginError


class Mailbox(Model):
    """Where letters go."""

    url: str
    size: int = 10


BOXES: DaemonSetting[dict[str, Mailbox]] = DaemonSetting("boxes", dict[str, Mailbox], default={})


class Post:
    @hookimpl
    def register_daemon_settings(self) -> list[DaemonSetting[Any]]:
        return [BOXES]


@pytest.fixture
def config(tmp_path: Path) -> ConfigFolder:
    folder = ConfigFolder(tmp_path / "config")
    folder.host = host_of(("post", Post()))
    folder.endpoint()
    return folder


def test_register_daemon_settings(config: ConfigFolder) -> None:
    assert config.load()[BOXES] == {}
    config.daemon("boxes: {a: {url: 'x:${SIZE}', size: '${SIZE}'}}\nlease: 1m\n")
    config.environ = {"SIZE": "7"}
    assert config.load()[BOXES] == {"a": Mailbox(url="x:7", size=7)}
    config.daemon("boxes:\n")
    assert config.load()[BOXES] == {}


def test_what_is_wrong_has_its_place(config: ConfigFolder) -> None:
    config.daemon("boxes:\n  a: {size: many, urll: x}\nboxs: {}\n")
    assert config.errors() == [
        "orchestratord.yaml:2:3: boxes.a.url: is required",
        "orchestratord.yaml:2:7: boxes.a.size: expected a whole number, not 'many'",
        "orchestratord.yaml:2:19: boxes.a.urll: unknown key, did you mean 'url'?",
        "orchestratord.yaml:3:1: boxs: unknown key, did you mean 'boxes'?",
    ]


def test_a_disabled_plugins_keys_are_accepted_and_not_read(config: ConfigFolder) -> None:
    config.host = host_of()
    config.host.registry.remember_disabled(Post(), "post")
    config.daemon("boxes: 7\n")
    assert config.warnings() == [
        "orchestratord.yaml:1:1: boxes: belongs to the plugin post, which is disabled; "
        "it is not read"
    ]
    assert config.load()[BOXES] == {}
    jsonschema.validate({"boxes": 7}, json_schema("daemon", config.host.registry))


@pytest.mark.parametrize("key", ["database", "plugins", "defaults"])
def test_no_plugin_can_take_a_key_of_the_core(key: str) -> None:
    class Taking:
        @hookimpl
        def register_daemon_settings(self) -> list[DaemonSetting[int]]:
            return [DaemonSetting(key, int, default=0)]

    with pytest.raises(PluginError, match=f"{key}' is registered by orchestratord and by taking"):
        host_of(("taking", Taking()))
    with pytest.raises(PluginError, match="'boxes' is registered by post and by again"):
        host_of(("post", Post()), ("again", Post()))


def test_the_schema_knows_them(config: ConfigFolder) -> None:
    schema = json_schema("daemon", config.host.registry)
    jsonschema.validate({"boxes": {"a": {"url": "x", "size": "${SIZE}"}}}, schema)
    with pytest.raises(jsonschema.ValidationError, match=r"'size' was unexpected|'url' is a req"):
        jsonschema.validate({"boxes": {"a": {"size": 3}}}, schema)


def test_a_reload_takes_them_up_and_names_them_without_their_values(config: ConfigFolder) -> None:
    config.daemon("boxes: {a: {url: x}}\n")
    loader = Loader(config.path, config.host, environ={})
    config.daemon("boxes: {a: {url: y}}\nlease: 1m\n")
    result = loader.reload("test")
    assert result.changes.daemon == ("lease", "boxes")
    assert [(item.key, item.before, item.after) for item in result.differences] == [
        ("lease", "90s", "1m"),
        ("boxes", "***", "***"),
    ]
    assert loader.config[BOXES]["a"].url == "y"
