"""What `subscriptions.portal` may say, and what its tokens are good for."""

from __future__ import annotations

import base64
from pathlib import Path

import orchestratord_subscriptions
import pytest
from orchestratord_subscriptions import portal_token
from orchestratord_subscriptions.declaration import SUBSCRIPTIONS
from orchestratord_subscriptions.derived_secret import MasterKey
from orchestratord_subscriptions.portal_token import PortalToken

from orchestratord.values import world
from tests.unit.config.config_parts import ConfigFolder, host_of

KEY = base64.b64encode(bytes(range(32))).decode()
BIND = "bind: 127.0.0.1:8440"


def written(tmp_path: Path, portal: str) -> ConfigFolder:
    folder = ConfigFolder(tmp_path)
    folder.host = host_of(("subscriptions", orchestratord_subscriptions))
    folder.endpoint()
    folder.daemon(f"subscriptions:\n  key: {KEY}\n  portal:\n    {portal}\n")
    return folder


def test_its_port_is_one_of_the_daemon(tmp_path: Path) -> None:
    config = written(tmp_path, f"{BIND}\n    url: https://hooks.example.com").load()
    assert list(config.ports) == ["subscriptions.portal"]
    assert config.ports["subscriptions.portal"].bind == "127.0.0.1:8440"
    settings = config[SUBSCRIPTIONS]
    assert settings is not None
    assert settings.portal is not None
    assert settings.portal.colour == "#1f56c3"


@pytest.mark.parametrize(
    ("portal", "said"),
    [
        ("bind: nowhere\n    url: https://a.example", "orchestratord.yaml:4:5: subscriptions"
            ".portal.bind: expected an address and a port"),
        (BIND, "url"),
        (f"{BIND}\n    url: hooks.example.com", "expected the public address of the portal"),
        (f"{BIND}\n    url: https://a.example/?x=1", "expected the public address of the portal"),
        (f"{BIND}\n    url: https://a.example\n    colour: red", "colour"),
        (f"{BIND}\n    url: https://a.example\n    frame_origins: ['*']", "frame_origins"),
    ],
)  # fmt: skip
def test_a_mistake_is_shown_at_its_place(tmp_path: Path, portal: str, said: str) -> None:
    assert said in written(tmp_path, portal).error()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_its_port_is_not_that_of_the_api(tmp_path: Path, host: str) -> None:
    folder = written(tmp_path, f"{BIND}\n    url: https://hooks.example.com")
    with (tmp_path / "orchestratord.yaml").open("a") as file:
        file.write(f"http: {{bind: '{host}:8440', token: 0123456789abcdef}}\n")
    assert "subscriptions.portal.bind: http.bind is the same: change one" in folder.error()


def test_a_token_is_good_for_its_kind_its_time_and_its_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key, other = MasterKey(bytes(range(32))), MasterKey(bytes(32))
    token = PortalToken.new("link", "acme", 7)
    text = token.signed(key)
    assert portal_token.read(text, "link", [other, key]) == token
    assert portal_token.read(text, "session", [key]) is None
    assert portal_token.read(text, "link", [other]) is None
    for wrong in ("", ".", "ä.ä", text[:-1], f"A{text}", text.replace(".", "..")):
        assert portal_token.read(wrong, "link", [key]) is None
    late = world.time() + portal_token.SECONDS["link"] + 1
    monkeypatch.setattr(portal_token.world, "time", lambda: late)
    assert portal_token.read(text, "link", [key]) is None
