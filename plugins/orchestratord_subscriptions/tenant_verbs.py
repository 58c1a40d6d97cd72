"""The verbs of `orchestratorctl` for tenants and their subscriptions."""

from orchestratord import VerbRow

_TENANT = {"tenant": "the id of the tenant"}
_ONE = {**_TENANT, "id": "that of the subscription"}
_KEYS = {
    "--events=NAMES": "public names, or patterns such as 'shop/*', with commas",
    "--when=EXPRESSION": "JMESPath over the payload, which has to hold",
    "--description=TEXT": "for people",
    "--rate=RATE": "how many deliveries may begin at most: 10/s",
}
_PAGE = {"--limit=N": "how many at most", "--after=ID": "behind this one, for the next page"}
_OF_TENANT = "/v1/tenants/{tenant}"
_MANY = f"{_OF_TENANT}/subscriptions"
_OF_ONE = f"{_MANY}/{{id}}"

VERBS = (
    VerbRow(
        "tenants", "list the tenants, and how many subscriptions fail", "/v1/tenants", "GET", _PAGE
    ),
    VerbRow("tenant", "show a tenant", _OF_TENANT, "GET", _TENANT),
    VerbRow(
        "put-tenant",
        "make a tenant, or rename it",
        _OF_TENANT,
        "PUT",
        {**_TENANT, "--name=NAME": "for people"},
    ),
    VerbRow(
        "remove-tenant",
        "remove a tenant; its deliveries that wait fail",
        _OF_TENANT,
        "DELETE",
        _TENANT,
    ),
    VerbRow(
        "subscriptions", "list the subscriptions of a tenant", _MANY, "GET", {**_TENANT, **_PAGE}
    ),
    VerbRow("subscription", "show a subscription, and how it fares", _OF_ONE, "GET", _ONE),
    VerbRow(
        "subscribe",
        "make a subscription, and show its secret",
        _MANY,
        "POST",
        {**_TENANT, "url": "where its deliveries go", **_KEYS},
    ),
    VerbRow(
        "change-subscription",
        "change a subscription",
        _OF_ONE,
        "PATCH",
        {
            **_ONE,
            "--url=URL": "where its deliveries go",
            "--enabled=BOOLEAN": "false: nothing is delivered",
            **_KEYS,
        },
    ),
    VerbRow(
        "unsubscribe",
        "remove a subscription; its deliveries that wait fail",
        _OF_ONE,
        "DELETE",
        _ONE,
    ),
    VerbRow("show-secret", "show the secret of a subscription", f"{_OF_ONE}/secret", "GET", _ONE),
    VerbRow(
        "rotate-secret",
        "make a new secret; the old one signs as well for 24 hours",
        f"{_OF_ONE}/rotate",
        "POST",
        _ONE,
    ),
    VerbRow("test-subscription", "send an example", f"{_OF_ONE}/test", "POST", _ONE),
    VerbRow(
        "replay-subscription",
        "send deliveries again that failed",
        f"{_OF_ONE}/replay",
        "POST",
        {**_ONE, "--since=TIME": "made since then: a time, or a duration back from now (1d)"},
    ),
)
