"""Mail by SMTP: an endpoint of `type: smtp` sends one, with the retries of any call.

The server stands in orchestratord.yaml, and nothing that a call brings can change where it is: as
with databases, the rules for egress are not asked.
"""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import Iterable
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, ClassVar, Literal

from orchestratord import (
    Config,
    DaemonSetting,
    Endpoint,
    Executor,
    InvalidPayload,
    Model,
    Need,
    Outcome,
    Parked,
    Secret,
    Send,
    Standing,
    Target,
    Task,
    Template,
    hookimpl,
)


class Server(Model):
    """The server that mails are handed to."""

    host: str
    port: int = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: Secret | None = None
    sender: str
    """Who the mails are from, such as `queue@example.com`."""
    concurrency: int = 4
    """How many mails are handed over at once by one daemon."""


SERVER: DaemonSetting[Server | None] = DaemonSetting("smtp", Server | None, default=None)


class Mail(Model):
    """The keys of an endpoint with `type: smtp`."""

    to: list[str]
    subject: Template
    text: Template


class SmtpExecutor(Executor):
    """Hands one mail to the server, in a thread of its own."""

    type: ClassVar[str] = "smtp"
    phases: ClassVar[tuple[str, str]] = ("before_execute", "after_execute")
    model: ClassVar[Any] = Mail

    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Standing:
        server = config[SERVER]
        if server is None:
            return Parked("orchestratord.yaml has no smtp")
        return Target(
            endpoint=endpoint,
            retry=endpoint.retry,
            timeout=endpoint.timeout,
            idempotent=endpoint.idempotent,
            lane=f"smtp:{server.host}:{server.port}",
            concurrency=server.concurrency,
            egress=(),
            detail=server,
        )

    def prepare(self, task: Task, target: Target, now: float) -> EmailMessage:
        mail, context = target.endpoint.spec, self.context(task, now)
        message = EmailMessage()
        message["From"] = target.detail.sender
        message["To"] = ", ".join(mail.to)
        message["Date"] = formatdate(now)
        # The same at each attempt: a mailbox can tell a repeat.
        message["Message-ID"] = f"<{task.nonce or f'{self.instance}-{task.id}'}@orchestratord>"
        try:
            message["Subject"] = str(mail.subject.render(context))
        except ValueError as error:  # a line break
            raise InvalidPayload(f"the subject: {error}") from None
        message.set_content(str(mail.text.render(context)))
        return message

    async def execute(self, request: Any, task: Task, target: Target, send: Send) -> Outcome:
        return await asyncio.to_thread(_hand_over, request, target)

    def pretend(self, request: Any, target: Target, body: Any) -> Outcome:
        return Outcome("success", "ok", answered=True)

    def needs(self, config: Config) -> Iterable[Need]:
        server = config[SERVER]
        if server is None:
            return
        try:
            _connected(server, 5.0).close()
        except (OSError, smtplib.SMTPException) as error:
            remedy = "mails wait meanwhile; mend it, or smtp in orchestratord.yaml"
            yield Need(f"the mail server {server.host}", _words(error), remedy)
        else:
            yield Need(f"the mail server {server.host} answers")


def _hand_over(message: EmailMessage, target: Target) -> Outcome:
    try:
        connection = _connected(target.detail, target.timeout)
    except (OSError, smtplib.SMTPException) as error:
        return _failed(error, target, sent=False)
    with connection:
        try:
            connection.send_message(message)
        except smtplib.SMTPResponseException as error:
            return _failed(error, target, sent=False)
        except smtplib.SMTPRecipientsRefused as error:
            code, text = next(iter(error.recipients.values()))
            return _failed(smtplib.SMTPResponseException(code, text), target, sent=False)
        except (OSError, smtplib.SMTPException) as error:
            # No answer to the mail itself: it may be on its way.
            return _failed(error, target, sent=True)
    return Outcome("success", "ok", answered=True)


def _connected(server: Server, timeout: float) -> smtplib.SMTP:
    kind = smtplib.SMTP_SSL if server.security == "tls" else smtplib.SMTP
    connection = kind(server.host, server.port, timeout=timeout)
    try:
        if server.security == "starttls":
            connection.starttls()
        if server.username is not None and server.password is not None:
            connection.login(server.username, server.password.reveal())
    except BaseException:
        connection.close()
        raise
    return connection


def _failed(error: Exception, target: Target, *, sent: bool) -> Outcome:
    """5xx is for good; 4xx, and no answer, are tried again where `when` has `error`."""
    code = getattr(error, "smtp_code", 0)
    retry = code < 500 and "error" in target.retry.when
    return Outcome(
        "retry" if retry else "failure",
        "error",
        error=_words(error),
        answered=bool(code),
        maybe_done=sent,
        unreached=not code and not sent,
    )


def _words(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        said = text.decode(errors="replace") if isinstance(text, bytes) else text
        return f"{error.smtp_code} {' '.join(said.split())}"
    return f"{type(error).__name__}: {error}"


@hookimpl
def register_daemon_settings() -> list[DaemonSetting[Any]]:
    return [SERVER]


@hookimpl
def register_executor() -> list[Executor]:
    return [SmtpExecutor()]
