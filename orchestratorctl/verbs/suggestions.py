"""What was probably meant by a verb, an endpoint, a webhook or an id that there is not."""

from __future__ import annotations

import difflib
from argparse import Namespace
from collections.abc import Iterable

from orchestratorctl.exit_codes import CommandError
from orchestratorctl.socket_client import HINT_TIMEOUT, SocketClient, endpoint_path


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be."""
    words = sorted(known)
    if len(word) > 2 and (longer := [one for one in words if one.startswith(word)]):
        return longer[0]
    return next(iter(difflib.get_close_matches(word, words, n=1)), None)


def did_you_mean(word: str, known: Iterable[str]) -> list[str]:
    """The sentence that names the nearest known word; none where none is near."""
    near = nearest(word, known)
    return [] if near in (None, word) else [f"Did you mean {near}?"]


def hints(client: SocketClient, arguments: Namespace) -> list[str]:
    """Sentences below `there is no …`, from what there is. Does not fail."""
    try:
        given = (getattr(arguments, name, None) for name in ("endpoint", "id", "name"))
        endpoint = next(filter(None, given), None)
        if isinstance(endpoint, str):
            return _endpoint_hints(client, endpoint, getattr(arguments, "webhook", None))
        return _id_hints(client, arguments)
    except CommandError:
        return []


def _endpoint_hints(client: SocketClient, endpoint: str, webhook: str | None) -> list[str]:
    document = client.get("/v1/endpoints", timeout=HINT_TIMEOUT)
    known = [str(one.get("id")) for one in document.get("endpoints") or []]
    if endpoint not in known or webhook is None:
        return did_you_mean(endpoint, known)
    found = client.get(endpoint_path(endpoint), timeout=HINT_TIMEOUT).get("webhooks") or []
    return did_you_mean(webhook, [str(one.get("name")) for one in found])


def _id_hints(client: SocketClient, arguments: Namespace) -> list[str]:
    """A task and a bulk may have the same number, and one be asked for by the other's verb."""
    number = getattr(arguments, "id", None)
    if number is None:
        return []
    other, target, verb = (
        ("task", f"/v1/retries/{number}", "show")
        if arguments.verb.name == "bulks"
        else ("bulk", f"/v1/bulks/{number}", "bulks")
    )
    client.get(target, timeout=HINT_TIMEOUT)
    return [f"There is a {other} {number}: orchestratorctl {verb} {number}"]
