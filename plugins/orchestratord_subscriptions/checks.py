"""What can be said of subscriptions before the first event."""

from __future__ import annotations

from collections.abc import Iterator

from orchestratord_webhooks import WEBHOOKS

from orchestratord import Config, Endpoint, Problem, hookimpl, world
from orchestratord_subscriptions.declaration import PUBLIC, SUBSCRIPTIONS


@hookimpl
def check_config(config: Config) -> Iterator[Problem]:
    """What is wrong with `subscriptions:`."""
    settings = config[SUBSCRIPTIONS]
    imported = settings and settings.imported_secrets
    if imported and imported.until.timestamp() <= world.time():
        yield Problem(
            "they sign no more: take imported_secrets out, and delete the file",
            key="subscriptions.imported_secrets.until",
            severity="warning",
        )


@hookimpl
def check_endpoint(endpoint: Endpoint, config: Config) -> Iterator[Problem]:
    """All that is wrong with what one endpoint tells subscribers."""
    webhooks = endpoint[WEBHOOKS]
    told = [number for number, one in enumerate(webhooks) if one.subscribers is not None]
    if told and config[SUBSCRIPTIONS] is None:
        yield Problem(
            "there are no subscriptions: write subscriptions: {key: …} into orchestratord.yaml",
            key=f"webhooks.{told[0]}.subscribers",
        )
    public = endpoint[PUBLIC]
    if public is None:
        return
    if not told:
        yield Problem(
            "no webhook of it has `subscribers`: tenants never see it",
            key="public",
            severity="warning",
        )
    for other in config.endpoints.values():
        taken = other[PUBLIC]
        if taken is not None and other.id < endpoint.id and taken.name == public.name:
            yield Problem(f"the name {public.name} is taken by {other.id}", key="public.name")
