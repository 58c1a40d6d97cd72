"""References and the check, with a stand-in for Vault's API."""

from __future__ import annotations

from typing import Any

import httpx
import orchestratord_vault
import pytest

from orchestratord.testing import Rig

SECRETS = {"secret/data/crm": {"data": {"data": {"token": "s3cret-of-the-vault"}}}}


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def get(url: str, headers: dict[str, str], timeout: float) -> httpx.Response:
        asked.append(headers["X-Vault-Token"])
        path = url.removeprefix("http://vault.test/v1/")
        request = httpx.Request("GET", url)
        if path not in SECRETS:
            return httpx.Response(404, request=request)
        return httpx.Response(200, json=SECRETS[path], request=request)

    monkeypatch.setattr(httpx, "get", get)
    monkeypatch.setenv("VAULT_ADDR", "http://vault.test/")
    monkeypatch.setenv("VAULT_TOKEN", "a-token")
    return asked


def test_a_secret_is_read(vault: list[str]) -> None:
    read: Any = Rig(orchestratord_vault).host.registry.references["vault"]
    assert read("secret/data/crm#token") == "s3cret-of-the-vault"
    assert vault == ["a-token"]
    for path, why in [
        ("secret/data/crm", "name a key behind a #"),
        ("secret/data/crm#pin", "has no text 'pin'"),
        ("secret/data/shop#token", "does not give it: Client error '404"),
    ]:
        with pytest.raises(ValueError, match=why):
            read(path)


def test_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    with pytest.raises(ValueError, match=r"VAULT_ADDR is not set"):
        orchestratord_vault.read("a#b")


def test_doctor_says_whether_it_answers(vault: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (need,) = orchestratord_vault.look(Any, None)  # type: ignore[arg-type]
    assert "404" in need.fault
    monkeypatch.setitem(SECRETS, "sys/health", {"data": {}})
    (need,) = orchestratord_vault.look(Any, None)  # type: ignore[arg-type]
    assert (need.what, need.fault) == ("the vault answers", "")
