"""What can be said of subscriptions before the first event."""

from __future__ import annotations

from collections.abc import Iterator

from orchestratord_webhooks import WEBHOOKS

from orchestratord import Config, Endpoint, Problem
from orchestratord_subscriptions.declaration import PUBLIC, SUBSCRIPTIONS


def problems(endpoint: Endpoint, config: Config) -> Iterator[Problem]:
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
