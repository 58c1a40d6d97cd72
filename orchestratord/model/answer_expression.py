"""Expressions over an answer, as the YAML has them.

They see `{status_code, headers, body, text}`, or the body alone: which of the two is told by the
names at which an expression begins, and never by an answer.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from orchestratord.values.jmespath_expression import Expression

OF_ANSWER = frozenset({"status_code", "headers", "body", "text"})
"""What an expression sees of an answer."""
WHOLE = "@"
"""All of it, as `Expression.names` has it."""


def _of_one(expression: Expression) -> Expression:
    """Raises ValueError where it names parts of the answer, and something else."""
    of_answer, others = expression.names & OF_ANSWER, expression.names - OF_ANSWER
    if of_answer and others:
        other = min(others)
        inside = "the body as a whole is body" if other == WHOLE else f"write body.{other}"
        raise ValueError(
            f"{min(of_answer)} is a part of the answer, and {other} one of its body: {inside}"
        )
    return expression


def _of_answer(expression: Expression) -> Expression:
    """Raises ValueError where it names something else than the parts of the answer."""
    for name in sorted(expression.names - {*OF_ANSWER, WHOLE}):
        there_is = ", ".join(sorted(OF_ANSWER))
        raise ValueError(f"there is {there_is}, and no {name!r}: write body.{name}")
    return expression


AnswerExpression = Annotated[Expression, AfterValidator(_of_one)]
"""One that judges an answer."""

ErrorMessage = Annotated[Expression, AfterValidator(_of_answer)]
"""One that finds what an answer says is wrong."""
