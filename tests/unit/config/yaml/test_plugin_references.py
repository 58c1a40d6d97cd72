"""References whose kind a plugin brings: secret, read with each configuration, errors in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from config_parts import ConfigFolder, host_of

from orchestratord.config.loader import Loader
from orchestratord.errors import ConfigError, PluginError
from orchestratord.plugin.hook_marks import hookimpl
from orchestratord.plugin.host import Host

API = "base_url: https://crm.test\nauth: {bearer: '${vault:crm/token}'}\n"


class Vault:
    def __init__(self, read: Callable[[str], Any] | None = None, kind: str = "vault") -> None:
        self.values: dict[str, str] = {"crm/token": "first-token"}
        self.asked: list[str] = []
        self.kind, self.read = kind, read or self._look_up

    @hookimpl
    def register_references(self) -> Any:
        return {self.kind: self.read}

    def _look_up(self, path: str) -> str:
        self.asked.append(path)
        try:
            return self.values[path]
        except KeyError:
            raise ValueError("the vault has no such entry") from None


@pytest.fixture
def vault(config: ConfigFolder) -> Vault:
    vault = Vault()
    config.host = host_of(("vault", vault))
    config.write("apis/crm/api.yaml", API)
    config.write("apis/crm/endpoints/get.yaml", "path: /x\nheaders: {A: '${vault:crm/token}'}\n")
    return vault


def test_register_references_are_secret_and_read_once_a_reading(
    config: ConfigFolder, vault: Vault
) -> None:
    loaded = config.load()
    assert vault.asked == ["crm/token"]
    assert loaded.redactor.text("it is first-token!") == "it is ***!"
    assert "first-token" not in repr(loaded.apis["crm"])


def test_a_reload_takes_a_new_value_up(config: ConfigFolder, vault: Vault) -> None:
    loader = Loader(config.path, config.host)
    assert not loader.reload("test").changed
    vault.values["crm/token"] = "second-token"
    assert loader.reload("test").changed
    assert loader.config.redactor.text("second-token first-token") == "*** ***"
    del vault.values["crm/token"]
    done = loader.reload("test")
    assert not done.changed
    assert "the vault has no such entry" in str(done.problems[0])


def raises(path: str) -> str:
    raise RuntimeError("down")


async def waits(path: str) -> str:
    return path


@pytest.mark.parametrize(
    ("read", "why"),
    [
        (raises, "${vault:crm/token}: RuntimeError: down"),
        (lambda path: 7, "${vault:crm/token}: TypeError: it is a int, and no text"),
        (lambda path: "\n", "${vault:crm/token}: is empty"),
        (exit, "${vault:crm/token}: SystemExit: crm/token"),
    ],
)
def test_what_cannot_be_read_is_an_error_at_its_place(
    config: ConfigFolder, read: Callable[[str], Any], why: str
) -> None:
    config.host = host_of(("vault", Vault(read)))
    config.write("apis/crm/api.yaml", API)
    with pytest.raises(ConfigError) as caught:
        config.load()
    (problem,) = caught.value.problems
    assert str(problem).startswith("apis/crm/api.yaml:2:")
    assert why in problem.message


@pytest.mark.parametrize(
    ("read", "why"),
    [
        (waits, "the reference 'vault' is an `async def`; write a `def`"),
        (lambda: "x", "the reference 'vault' is called with 1 arguments: too many positional"),
    ],
)
def test_one_that_cannot_be_called_is_refused_where_it_is_registered(read: Any, why: str) -> None:
    host = Host()
    host.register(Vault(read), "vault")
    assert why in str(host.plugins["vault"].error)


def test_an_unknown_kind_suggests_that_of_a_plugin(config: ConfigFolder, vault: Vault) -> None:
    config.write("apis/crm/api.yaml", API.replace("vault", "vautl"))
    with pytest.raises(ConfigError, match=r"unknown kind of reference.*did you mean 'vault'\?"):
        config.load()


def test_of_a_disabled_plugin_it_says_so(config: ConfigFolder, vault: Vault) -> None:
    config.host = host_of()
    config.host.registry.remember_disabled(vault, "vault")
    with pytest.raises(ConfigError, match="the plugin vault is disabled"):
        config.load()


def test_a_kind_is_registered_once() -> None:
    host = Host()
    host.register(Vault(), "one")
    with pytest.raises(PluginError, match="kind of reference 'vault' is registered by one and by"):
        host.register(Vault(), "two")
    with pytest.raises(PluginError, match="'file' is registered by orchestratord and by three"):
        host.register(Vault(kind="file"), "three")
    host.register(Vault(kind="a b"), "four")
    assert "is not a word of small letters" in (host.plugins["four"].error or "")
