"""What can be said of subscriptions before the first event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
    if (first := _names.first_of(config).get(public.name, endpoint.id)) != endpoint.id:
        yield Problem(f"the name {public.name} is taken by {first}", key="public.name")


class PublicNames:
    """Which endpoint has each public name: the first one by its id.

    All endpoints of a configuration are checked one after the other, and looked at once for that.
    """

    def __init__(self) -> None:
        self._known: tuple[Config | None, Mapping[str, str]] = (None, {})

    def first_of(self, config: Config) -> Mapping[str, str]:
        """The ids by the names."""
        if self._known[0] is not config:
            public = ((one.id, one[PUBLIC]) for one in config.endpoints.values())
            found = sorted(((id_, it.name) for id_, it in public if it is not None), reverse=True)
            self._known = config, {name: id_ for id_, name in found}
        return self._known[1]


_names = PublicNames()
