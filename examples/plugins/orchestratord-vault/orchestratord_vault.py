"""`${vault:PATH#KEY}` in the YAML is a secret of HashiCorp Vault, of its second engine for them.

The variables of Vault's own program say where it is: VAULT_ADDR and VAULT_TOKEN. The path is that
of the API, as in `${vault:secret/data/crm#token}`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import httpx

from orchestratord import Check, Config, Need, Reference, hookimpl

TIMEOUT = 5.0
"""Seconds; the start of the daemon waits for it."""


def read(path: str) -> str:
    """One value of a secret. Raises ValueError, which says what is wrong."""
    where, _, key = path.partition("#")
    if not key:
        raise ValueError("name a key behind a #, as in ${vault:secret/data/crm#token}")
    answer = ask(where)
    data = answer.get("data", {}).get("data", {})
    if not isinstance(data.get(key), str):
        raise ValueError(f"the secret has no text {key!r}")
    return str(data[key])


def ask(path: str) -> Mapping[str, Any]:
    """What Vault answers. Raises ValueError."""
    address, token = os.environ.get("VAULT_ADDR"), os.environ.get("VAULT_TOKEN", "")
    if not address:
        raise ValueError("$VAULT_ADDR is not set for the daemon")
    try:
        headers = {"X-Vault-Token": token}
        answer = httpx.get(f"{address.rstrip('/')}/v1/{path}", headers=headers, timeout=TIMEOUT)
        answer.raise_for_status()
        found: Mapping[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise ValueError(f"Vault at {address} does not give it: {error}") from None
    return found


def look(config: Config, status: Mapping[str, Any] | None) -> Iterable[Need]:
    """Whether Vault can be reached from here."""
    if shutil.which("vault") is None and "VAULT_ADDR" not in os.environ:
        return
    try:
        ask("sys/health")
    except ValueError as error:
        yield Need("the vault", str(error), "set VAULT_ADDR, and see that it is unsealed")
    else:
        yield Need("the vault answers")


@hookimpl
def register_references() -> Mapping[str, Reference]:
    return {"vault": read}


@hookimpl
def register_checks() -> Iterable[Check]:
    return [Check("vault", look)]
