"""The executor against a server that speaks as much SMTP as it takes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import orchestratord_smtp
import pytest

from orchestratord import InvalidPayload, Outcome, Parked, Template
from orchestratord.testing import START, Answers, Rig, task


class MailServer:
    """Takes mails; `answers` says what it answers to a command instead of 250."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.mails: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rw", newline="\r\n") as lines:
                self._converse(lines)

    def _converse(self, lines: Any) -> None:
        def say(line: str) -> None:
            lines.write(f"{line}\r\n")
            lines.flush()

        say("220 ready")
        while line := lines.readline():
            verb = line[:4].strip().upper()
            answer = self.answers.get(verb, "250 ok")
            if verb == "DATA" and verb not in self.answers:
                say("354 go on")
                mail = []
                while (part := lines.readline()) not in (".\r\n", ""):
                    mail.append(part)
                self.mails.append("".join(mail))
                answer = self.answers.get("MAIL SENT", "250 taken")
            if answer == "hang up":
                return
            say("221 bye" if verb == "QUIT" else answer)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # close() alone lets accept() go on
        self._socket.close()


@pytest.fixture
def server() -> Iterator[MailServer]:
    server = MailServer()
    yield server
    server.close()


def send(server: MailServer, **params: str) -> Outcome:
    rig = Rig(orchestratord_smtp)
    spec = orchestratord_smtp.Mail(
        to=["ops@example.com"],
        subject=Template.parse("{{ params.subject }}"),
        text=Template.parse("see {{ task.id }}"),
    )
    endpoint = rig.endpoint("mail/ops", type="smtp", spec=spec, idempotent=False)
    settings = {
        "host": "127.0.0.1",
        "port": server.port,
        "security": "none",
        "sender": "q@example.com",
    }
    executor = orchestratord_smtp.SmtpExecutor()
    target = executor.standing(endpoint, "", rig.config(endpoint, daemon={"smtp": settings}))
    given = task(endpoint_id="mail/ops", params={"subject": "well", **params}, nonce="n0nce")
    message = executor.prepare(given, target, START)
    return asyncio.run(executor.execute(message, given, target, Answers()))


def test_a_mail_arrives_with_its_own_id(server: MailServer) -> None:
    assert send(server).verdict == "success"
    (mail,) = server.mails
    assert "Subject: well\r\n" in mail
    assert "Message-ID: <n0nce@orchestratord>\r\n" in mail
    assert "see 1" in mail


@pytest.mark.parametrize(
    ("command", "answer", "verdict"),
    [
        ("RCPT", "450 mailbox busy", "retry"),
        ("RCPT", "550 no such user", "failure"),
        ("MAIL", "451 try again", "retry"),
        ("DATA", "554 no", "failure"),
    ],
)
def test_what_the_server_refuses(
    server: MailServer, command: str, answer: str, verdict: str
) -> None:
    server.answers[command] = answer
    outcome = send(server)
    assert (outcome.verdict, outcome.error, outcome.maybe_done) == (verdict, answer, False)


def test_a_lost_answer_may_mean_that_it_was_sent(server: MailServer) -> None:
    server.answers["MAIL SENT"] = "hang up"
    outcome = send(server)
    assert (outcome.verdict, outcome.maybe_done) == ("retry", True)


def test_no_server_is_tried_again(server: MailServer) -> None:
    server.close()
    outcome = send(server)
    assert (outcome.verdict, outcome.maybe_done, outcome.unreached) == ("retry", False, True)


def test_a_subject_of_two_lines_is_no_mail(server: MailServer) -> None:
    with pytest.raises(InvalidPayload):
        send(server, subject="one\nBcc: other@example.com")


def test_without_a_server_mails_wait() -> None:
    rig = Rig(orchestratord_smtp)
    endpoint = rig.endpoint("mail/ops", type="smtp")
    standing = orchestratord_smtp.SmtpExecutor().standing(endpoint, "", rig.config(endpoint))
    assert isinstance(standing, Parked)
