"""The verbs of `orchestratorctl` for tenants and their subscriptions."""

from orchestratord import VerbRow

TENANT_PATH = "/v1/tenants/{tenant}"
SUBSCRIPTIONS_PATH = f"{TENANT_PATH}/subscriptions"
SUBSCRIPTION_PATH = f"{SUBSCRIPTIONS_PATH}/{{id}}"
_ONE, _MANY, _TENANT = SUBSCRIPTION_PATH, SUBSCRIPTIONS_PATH, TENANT_PATH

_OF_TENANT = {"tenant": "the id of the tenant"}
_OF_ONE = {**_OF_TENANT, "id": "that of the subscription"}
_NAME = {"--name=NAME": "for people"}
_KEYS = {
    "--events=NAMES": "public names, or patterns such as 'shop/*', with commas",
    "--when=EXPRESSION": "JMESPath over the payload, which has to hold",
    "--description=TEXT": "for people",
    "--rate=RATE": "how many deliveries may begin at most: 10/s",
}
_URL = "where its deliveries go"
_NEW = {**_OF_TENANT, "url": _URL, **_KEYS}
_CHANGES = {"--url=URL": _URL, "--enabled=BOOLEAN": "false: nothing is delivered", **_KEYS}
_PAGE = {"--limit=N": "how many at most", "--after=ID": "behind this one, for the next page"}
_SINCE = {"--since=TIME": "made since then: a time, or a duration back from now (1d)"}

VERBS = (
    VerbRow("tenants", "list tenants, and how many of theirs fail", "/v1/tenants", "GET", _PAGE),
    VerbRow("tenant", "show a tenant", _TENANT, "GET", _OF_TENANT),
    VerbRow("put-tenant", "make a tenant, or rename it", _TENANT, "PUT", _OF_TENANT | _NAME),
    VerbRow("remove-tenant", "remove a tenant; its deliveries fail", _TENANT, "DELETE", _OF_TENANT),
    VerbRow("portal", "make a link to a tenant's portal", f"{_TENANT}/portal", "POST", _OF_TENANT),
    VerbRow("subscriptions", "list a tenant's subscriptions", _MANY, "GET", _OF_TENANT | _PAGE),
    VerbRow("subscription", "show a subscription, and how it fares", _ONE, "GET", _OF_ONE),
    VerbRow("subscribe", "make a subscription, and show its secret", _MANY, "POST", _NEW),
    VerbRow("change-subscription", "change a subscription", _ONE, "PATCH", _OF_ONE | _CHANGES),
    VerbRow("unsubscribe", "remove a subscription; its deliveries fail", _ONE, "DELETE", _OF_ONE),
    VerbRow("show-secret", "show the secret of a subscription", f"{_ONE}/secret", "GET", _OF_ONE),
    VerbRow(
        "rotate-secret",
        "make a new secret; both sign for 24 hours",
        f"{_ONE}/rotate",
        "POST",
        _OF_ONE,
    ),
    VerbRow("test-subscription", "send an example", f"{_ONE}/test", "POST", _OF_ONE),
    VerbRow(
        "replay-subscription",
        "send failed deliveries again",
        f"{_ONE}/replay",
        "POST",
        _OF_ONE | _SINCE,
    ),
)
