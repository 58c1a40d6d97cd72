"""The portal of a daemon, as these tests open it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.acceptance.processes import free_port
from tests.acceptance.subscriptions.tenants import MakeTenants, Tenants


def exchange(url: str, link: str) -> httpx.Response:
    """What the page asks at this portal with the token of a link."""
    return httpx.post(f"{url}/session", json={"token": link.partition("#")[2]}, timeout=30)


class Portal:
    """The portal's port, and links to it."""

    def __init__(self, make_tenants: MakeTenants, **more: Any) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        portal = {"bind": f"127.0.0.1:{port}", "url": self.url, **more}
        self.tenants: Tenants = make_tenants(portal=portal)

    def link(self, tenant: str) -> str:
        """The address of a link."""
        answer = self.tenants.ask("POST", f"/{tenant}/portal")
        assert answer.status_code == 201, answer.text
        url: str = answer.json()["url"]
        assert url.startswith(f"{self.url}/#")
        return url

    def exchange(self, link: str) -> httpx.Response:
        """What the page asks with the token of a link."""
        return exchange(self.url, link)

    @contextmanager
    def session(self, tenant: str) -> Iterator[httpx.Client]:
        """A session of a tenant."""
        token = self.exchange(self.link(tenant)).json()["session"]
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=30) as client:
            yield client
