"""What would follow from an answer, by the configuration in force or by a draft of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestratord.api.bodies import ExplainBody, read_body
from orchestratord.api.verbs import Verbs
from orchestratord.config.params import exemplary
from orchestratord.errors import InvalidParams
from orchestratord.model.test_case import ERRORS, Pretended, parse_code
from orchestratord.plugin.hookspecs import PHASES
from orchestratord.simulate.report import explained_json
from orchestratord.values.suggest import suggest

NAMES = ("phase", "status_code", "error", "attempt")
"""What a query can say; a body says more."""


async def preview(verbs: Verbs, endpoint_id: str, asked: Any) -> dict[str, Any]:
    """What `orchestratord explain` says, as JSON-like data with secrets masked.

    Args:
        verbs: the daemon.
        endpoint_id: whose calls are explained.
        asked: an `ExplainBody`, or None.

    Raises:
        InvalidParams, NotFound, Conflict; ConfigError where a draft would be refused.
    """
    body = read_body(ExplainBody, asked)
    answer = _answer(body)
    config = verbs.config
    endpoint = verbs.endpoint(endpoint_id)
    if body.draft:
        config = await verbs.drafted(endpoint_id, body.draft)
        endpoint = config.endpoints[endpoint_id]
    explained = await verbs.explain(
        config,
        endpoint,
        exemplary(endpoint, body.params),
        attempt=body.attempt,
        answer=answer,
        phase=body.phase,
    )
    return explained_json(explained, config.redactor.merged(verbs.config.redactor))


def from_query(query: Mapping[str, str]) -> dict[str, Any]:
    """The same question, asked by the parameters of an address."""
    return {name: text for name, text in query.items() if text}


def _answer(body: ExplainBody) -> Pretended | None:
    """The answer that is pretended. Raises InvalidParams."""
    wrong: dict[str, str] = {}
    phase, code = body.phase, body.status_code
    if phase is not None and phase not in PHASES:
        wrong["phase"] = f"unknown phase {phase!r}{suggest(phase, PHASES)}"
    if body.error is not None and body.error not in ERRORS:
        wrong["error"] = f"unknown kind {body.error!r}{suggest(body.error, ERRORS)}"
    if code is not None:
        try:
            code = parse_code(code)
        except ValueError as error:
            wrong["status_code"] = str(error)
        else:
            if body.error is not None and code != "error":
                wrong["error"] = f"says that no answer comes, status_code that {code} does"
    elif body.error is None and phase is not None and not phase.startswith("before_"):
        wrong["status_code"] = f"is required: {phase} comes after an answer"
    if wrong:
        raise InvalidParams(wrong)
    if body.error is not None:
        return Pretended.model_validate({"error": body.error})
    return None if code is None else Pretended.model_validate({"status_code": code})
