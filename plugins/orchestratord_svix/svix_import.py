"""`orchestratord import svix`: tenants and subscriptions from the applications of Svix."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from orchestratord import config_option

if TYPE_CHECKING:
    import httpx

PAGE = 250
"""Applications or endpoints that Svix is asked for at once."""
SECONDS = 30.0


class Refused(click.ClickException):
    """An API refuses what it is asked."""


@click.group("import")
def import_() -> None:
    """Take over what another system describes."""


@import_.command()
@config_option
@click.argument("url")
@click.option(
    "--token-file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Holds the token of Svix's API.",
)
@click.option(
    "--secrets",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Takes the secrets of Svix, for subscriptions.imported_secrets; only you may read it.",
)
@click.option(
    "--socket",
    envvar="ORCHESTRATORD_SOCKET",
    help="The daemon's control socket; else $ORCHESTRATORD_SOCKET, else that of the configuration.",
)
def svix(config: str | None, url: str, token_file: Path, secrets: Path, socket: str | None) -> None:
    """Make a tenant for each application of Svix, and a subscription for each endpoint.

    URL is that of Svix's API, such as https://api.eu.svix.com. Run it again at any time: it makes
    what is new.
    """
    import httpx

    from orchestratord import opened_config

    if socket is None:
        opened = opened_config(config)
        named = opened.config.daemon.control_socket or "/run/orchestratord/control.sock"
        socket = str(opened.folder / named)  # a relative one is below the folder
    token = token_file.read_text().strip()
    theirs = httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=SECONDS
    )
    ours = httpx.Client(
        base_url="http://localhost", transport=httpx.HTTPTransport(uds=socket), timeout=SECONDS
    )
    known = json.loads(secrets.read_text()) if secrets.exists() else {}
    count = len(known)
    with theirs, ours:
        for application in _pages(theirs, "/api/v1/app/"):
            tenant = application.get("uid") or application["id"]
            path = f"/v1/tenants/{quote(tenant, safe='')}"
            try:
                _asked(ours, "PUT", path, {"name": application["name"]})
            except Refused as refused:
                click.echo(f"left out  {tenant}: {refused.message}")
                continue
            there = _asked(ours, "GET", f"{path}/subscriptions?limit=1000")["subscriptions"]
            made = {(one["url"], *sorted(one["events"])): one["id"] for one in there}
            for endpoint in _pages(theirs, place := f"/api/v1/app/{application['id']}/endpoint/"):
                if (id_ := _subscription(ours, path, tenant, endpoint, made)) is None:
                    continue
                secret = _asked(theirs, "GET", f"{place}{endpoint['id']}/secret/")["key"]
                if not secret.startswith("whsec_"):
                    click.echo(f"note      {tenant}/{id_}: give its receiver the new secret")
                    continue
                known[f"{tenant}/{id_}"] = secret
                _write(secrets, known)  # each at once: what is interrupted goes on from here
    click.echo(f"\n{len(known) - count} new secrets in {secrets}. Next, in orchestratord.yaml:")
    click.echo(f"subscriptions: {{imported_secrets: {{file: {secrets.absolute()}, until: …}}}}")


def _subscription(
    ours: httpx.Client,
    path: str,
    tenant: str,
    endpoint: dict[str, Any],
    made: dict[tuple[str, ...], str],
) -> str | None:
    """The id of the subscription of an endpoint; None where it has none, which is said."""
    events = endpoint.get("filterTypes") or []
    if (known := made.get((endpoint["url"], *sorted(events)))) is not None:
        return known
    if endpoint.get("channels"):
        click.echo(f"left out  {tenant} {endpoint['url']}: write its channels as a `when`")
        return None
    rate = endpoint.get("throttleRate") or endpoint.get("rateLimit")
    body = {
        "url": endpoint["url"],
        "events": events,
        "description": endpoint.get("description") or "",
        "enabled": not endpoint.get("disabled"),
        "rate": f"{rate}/s" if rate else None,
    }
    try:
        id_: str = _asked(ours, "POST", f"{path}/subscriptions", body)["id"]
    except Refused as refused:
        click.echo(f"left out  {tenant} {endpoint['url']}: {refused.message}")
        return None
    click.echo(f"made      {tenant}/{id_}: {endpoint['url']}")
    return id_


def _pages(svix: httpx.Client, path: str) -> Iterator[dict[str, Any]]:
    """Everything in a list of Svix's."""
    from httpx import QueryParams

    iterator, done = None, False
    while not done:
        asked = {"limit": PAGE, "iterator": iterator} if iterator else {"limit": PAGE}
        page = _asked(svix, "GET", f"{path}?{QueryParams(asked)}")
        yield from page["data"]
        iterator, done = page["iterator"], page["done"]


def _asked(client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    """The answer of an API. Raises Refused, and ClickException where none comes."""
    import httpx

    try:
        answer = client.request(method, path, json=body)
        document = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        where = "the daemon" if client.base_url.host == "localhost" else "Svix"
        raise click.ClickException(f"no answer of {where}: {error}") from None
    if answer.is_success:
        return document
    wrong = [f"{one['key']} {one['message']}" for one in document.get("errors", ())]
    said = "; ".join(wrong) or document.get("detail")
    raise Refused(f"{method} {path}: {answer.status_code} {said}")


def _write(file: Path, secrets: dict[str, str]) -> None:
    """Write the secrets whole, for this user alone."""
    draft = file.with_name(f".{file.name}.new")
    draft.unlink(missing_ok=True)
    opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "w") as writing:
        json.dump(secrets, writing, indent=1)
        writing.flush()
        os.fsync(writing.fileno())
    draft.replace(file)
