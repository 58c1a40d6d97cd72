"""Who edits files: one plugin, or none, and then a refusal says why."""

from __future__ import annotations

from typing import Any

import pytest

from orchestratord import Conflict, Declaration, Editor, PluginError, hookimpl
from orchestratord.plugin.host import Host

FOUND = Declaration("apis/shop/endpoints/get.yaml", (), (), '"1"')


class Plugin:
    @hookimpl
    def register_editor(self) -> Any:
        return [Editor(lambda file, key: FOUND, lambda *args, **how: None)]


def declared(host: Host) -> Declaration:
    return host.registry.editor[1].declaration(None, "webhooks")


def test_register_editor_is_of_one_plugin() -> None:
    host = Host()
    with pytest.raises(Conflict, match="cannot be edited here: no plugin does that"):
        declared(host)
    host.register(Plugin(), "first")
    why = "the hook 'register_editor' is registered by first and by second"
    with pytest.raises(PluginError, match=why):
        host.register(Plugin(), "second")
    assert declared(host) is FOUND
    host.registry.forget("first")
    with pytest.raises(Conflict, match="no plugin does that"):
        declared(host)


def test_a_disabled_editor_says_so() -> None:
    host = Host()
    host.registry.remember_disabled(Plugin(), "first")
    with pytest.raises(Conflict, match=r"the plugin first is disabled; .* plugins\.disabled"):
        declared(host)
    host.register(Plugin(), "second")
    host.registry.remember_disabled(Plugin(), "third")
    assert declared(host) is FOUND
