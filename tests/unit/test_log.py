"""One event is one line, without secrets and without control characters, in both formats."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from orchestratord import log
from orchestratord.model.settings import Log
from orchestratord.values.redact import Redactor

SECRET = "s3cr3t-of-the-api"

Written = Callable[[], list[str]]


@pytest.fixture(params=["text", "json"])
def logs(request: pytest.FixtureRequest) -> Iterator[tuple[str, log.LogHandler, Written]]:
    """The format, the handler, and the lines written so far."""
    stream = io.StringIO()
    root = logging.getLogger()
    level = root.level
    handler = log.set_up(
        Log(format=request.param, level="debug"), Redactor([SECRET]), stream=stream, environ={}
    )
    yield request.param, handler, lambda: stream.getvalue().splitlines()
    handler.remove()
    root.setLevel(level)


def message(line: str, form: str) -> str:
    return str(json.loads(line)["message"]) if form == "json" else line


def test_a_plain_line(logs: tuple[str, log.LogHandler, Written]) -> None:
    form, _, written = logs
    extra = {"task": 42, "why": ["a", float("nan"), Path("/x")]}
    logging.getLogger("orchestratord.worker").info("task %d is done", 42, extra=extra)
    (line,) = written()
    if form == "text":
        stamp, rest = line.split(" ", 1)
        assert stamp.endswith("Z")
        assert len(stamp) == len("2026-11-24T22:00:00.000Z")
        assert rest == "INFO worker: task 42 is done"
    else:
        fields = json.loads(line)
        assert fields.pop("time").endswith("Z")
        assert fields == {
            "level": "info",
            "logger": "orchestratord.worker",
            "message": "task 42 is done",
            "task": 42,
            "why": ["a", "nan", "/x"],
        }


def test_untrusted_text_stays_on_its_line(logs: tuple[str, log.LogHandler, Written]) -> None:
    form, handler, written = logs
    evil = "a\nb\r\n\x1b[2J\x07\x7f\x9b31m\u202e\u2028\ud800end"
    # Straight to the handler: pytest's own would keep a text that is not UTF-8.
    record = logging.LogRecord("x", logging.WARNING, "", 1, "answer: %s", (evil,), None)
    record.body = evil
    handler.handle(record)
    (line,) = written()
    assert line.isprintable()
    if form == "text":
        assert line.endswith(r"a\nb\r\n\u001b[2J\u0007\u007f\u009b31m\u202e\u2028\ud800end")
    else:
        assert json.loads(line)["body"] == evil


def wrong(text: str, argument: str) -> logging.LogRecord:
    """What a wrong call makes; pytest's own handler would raise for the call itself."""
    return logging.LogRecord("plugin", logging.INFO, "", 1, text, (argument,), None)


def test_secrets_are_masked_everywhere(logs: tuple[str, log.LogHandler, Written]) -> None:
    _, handler, written = logs
    logger = logging.getLogger("orchestratord")
    logger.info("bearer %s", SECRET, extra={"headers": {"x": [SECRET]}, SECRET: Path(SECRET)})
    try:
        raise ValueError(f"the key {SECRET} was refused")
    except ValueError:
        logger.exception("failed")
    logger.info("stack of %s", SECRET, stack_info=True)
    handler.handle(wrong("wrong %d", SECRET))
    text = "\n".join(written())
    assert len(written()) == 4
    assert SECRET not in text
    assert text.count("***") >= 4


def test_a_traceback_stays_on_its_line(logs: tuple[str, log.LogHandler, Written]) -> None:
    form, _, written = logs
    try:
        int("x" * 3)
    except ValueError as error:
        logging.getLogger("orchestratord.plugins").error("plugin a: broken", exc_info=error)
    (line,) = written()
    assert line.isprintable()
    if form == "text":
        assert "plugin a: broken | Traceback (most recent call last): | File " in line
        assert line.endswith("| ValueError: invalid literal for int() with base 10: 'xxx'")
        assert "^^^" not in line
    else:
        assert json.loads(line)["exception"].splitlines()[-1].startswith("ValueError: invalid")


def test_new_secrets_and_level_are_adopted_and_old_secrets_stay(
    logs: tuple[str, log.LogHandler, Written],
) -> None:
    form, handler, written = logs
    handler.adopt(Log(format=form, level="warning"), Redactor(["another-secret"]))
    logging.getLogger("orchestratord").info("not any more")
    logging.getLogger("orchestratord").warning("%s and another-secret", SECRET)
    (line,) = written()
    assert message(line, form).endswith("*** and ***")


def test_the_format_can_be_changed(logs: tuple[str, log.LogHandler, Written]) -> None:
    form, handler, written = logs
    handler.adopt(Log(format="json" if form == "text" else "text"), Redactor())
    logging.getLogger("orchestratord").info("changed")
    assert written()[0].startswith("{") is (form == "text")


@pytest.mark.parametrize("name", ["httpx", "httpcore.http11", "uvicorn.error", "peewee"])
def test_chatty_libraries_are_quiet(logs: tuple[str, log.LogHandler, Written], name: str) -> None:
    _, _, written = logs
    logging.getLogger(name).info("GET https://example.com/?token=x")
    assert written() == []
    logging.getLogger(name).warning("something is wrong")
    assert len(written()) == 1


def test_a_wrong_call_of_the_logger_is_one_line(logs: tuple[str, log.LogHandler, Written]) -> None:
    _, handler, written = logs
    handler.handle(wrong("%d tasks", "many"))
    (line,) = written()
    assert "%d tasks" in line
    assert "many" in line


def test_warnings_and_uncaught_errors_are_one_line_each(
    logs: tuple[str, log.LogHandler, Written],
) -> None:
    _, _, written = logs
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old\nway", stacklevel=1)
    thread = threading.Thread(target=lambda: int(SECRET), name="storage")
    thread.start()
    thread.join()
    try:
        int(SECRET)
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    lines = written()
    assert len(lines) == 3
    assert "storage" in lines[1]
    assert SECRET not in "".join(lines)


def test_warnings_in_json_lead_to_the_documentation(
    logs: tuple[str, log.LogHandler, Written],
) -> None:
    form, _, written = logs
    logging.getLogger("orchestratord.worker").warning("claiming failed; trying again in a second")
    logging.getLogger("orchestratord.worker").error("%s", "x", extra={"help": "https://own.test"})
    logging.getLogger("orchestratord.worker").info("claiming failed; trying again in a second")
    for other in ("orchestratord.plugins.acme", "acme"):
        logging.getLogger(other).warning("claiming failed; trying again in a second")
    lines = written()
    assert len(lines) == 5
    if form == "json":
        explained = "/messages/#claiming-failed-trying-again-in-a-second"
        first, second, *others = map(json.loads, lines)
        assert first["help"].endswith(explained)
        assert second["help"] == "https://own.test"
        assert not any("help" in other for other in others)
    else:
        assert "https:" not in "".join(lines)


def test_a_long_text_is_cut(logs: tuple[str, log.LogHandler, Written]) -> None:
    form, _, written = logs
    logging.getLogger("orchestratord").info("x" * 1_000_000)
    (line,) = written()
    assert len(line) < log.MAX_TEXT + 500
    assert message(line, form).endswith("… (1000000 characters)")


def test_a_reader_that_is_gone_harms_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as stream:
        handler = log.set_up(stream=stream, environ={})
        logging.getLogger("orchestratord").warning("nobody reads this")
        handler.remove()
        with pytest.raises(BrokenPipeError):
            stream.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("level", "number"),
    [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)],
)
def test_priorities(level: str, number: int) -> None:
    assert log.priority(logging.getLevelName(level.upper())) == number


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_journal_gets_priorities_and_keeps_the_time(tmp_path: Path, form: str) -> None:
    """A process of its own, whose stderr is the file that JOURNAL_STREAM names."""
    script = (
        "import logging; from orchestratord import log\n"
        "from orchestratord.model.settings import Log\n"
        f"log.set_up(Log(format={form!r}))\n"
        "logging.getLogger('orchestratord.worker').error('broken')\n"
        "raise SystemExit(int(bool(1/0)))\n"
    )
    path = tmp_path / "journal"
    with path.open("w") as file:
        status = os.fstat(file.fileno())
        environ = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        subprocess.run([sys.executable, "-c", script], stderr=file, env=environ, check=False)
    first, second = path.read_text().splitlines()
    assert first.startswith("<3>")
    assert second.startswith("<2>")
    assert "ZeroDivisionError" in second
    if form == "text":
        assert first == "<3>ERROR worker: broken"
    else:
        assert json.loads(first[3:])["message"] == "broken"


def test_another_stderr_is_not_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream:
        handler = log.set_up(stream=stream, environ={"JOURNAL_STREAM": "1:2"})
        logging.getLogger("orchestratord").error("broken")
        handler.remove()
    assert not (tmp_path / "file").read_text().startswith("<")


async def test_what_a_loop_logs_is_gathered_and_keeps_its_order() -> None:
    stream = io.StringIO()
    handler = log.set_up(stream=stream)
    try:
        handler.gather(asyncio.get_running_loop())
        logger = logging.getLogger("orchestratord.test")
        logger.info("first")
        assert stream.getvalue() == ""
        logger.warning("second")
        assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["first", "second"]
        logger.info("third")
        await asyncio.sleep(log.GATHER * 3)
        assert stream.getvalue().endswith("third\n")
        logger.info("fourth")
        await asyncio.to_thread(logger.info, "fifth")  # of another thread: at once, and in its turn
        assert [line.split()[-1] for line in stream.getvalue().splitlines()][3:] == [
            "fourth",
            "fifth",
        ]
        logger.info("sixth")
        handler.write_through()
        assert stream.getvalue().endswith("sixth\n")
    finally:
        handler.remove()


SHARED = """
import asyncio, logging, os
from orchestratord import log
handler = log.set_up()
handler.share_stream()
children = []
for name in "abc":
    if not (child := os.fork()):
        break
    children.append(child)
else:
    raise SystemExit(sum(os.waitpid(child, 0)[1] for child in children))

async def work():
    handler.gather(asyncio.get_running_loop())
    for number in range(300):
        level = logging.WARNING if number % 50 == 0 else logging.INFO
        text = chr(228) * (number % 200)
        logging.getLogger("orchestratord.worker").log(level, "%s %03d [%s]", name, number, text)
        await asyncio.sleep(0)
    handler.write_through()

asyncio.run(work())
"""


def test_lines_of_several_processes_on_one_stream_stay_whole() -> None:
    script = [sys.executable, "-c", SHARED]
    done = subprocess.run(script, stderr=subprocess.PIPE, encoding="utf-8", check=False)
    lines = done.stderr.splitlines()
    assert done.returncode == 0, done.stderr
    found = [re.fullmatch(r"\S+ (?:INFO|WARNING) worker: ([abc]) (\d+) \[(ä*)\]", x) for x in lines]
    assert len(lines) == 900
    told = [(match[1], int(match[2])) for match in found if match is not None]
    assert all(match is not None and len(match[3]) == int(match[2]) % 200 for match in found)
    for name in "abc":
        assert [number for of, number in told if of == name] == list(range(300)), "in its order"


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("journal", [False, True])
async def test_a_line_is_the_same_with_a_record_and_without(
    form: Literal["text", "json"], journal: bool, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w") as stream:
        status = os.fstat(stream.fileno())
        device = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"} if journal else {}
        settings, redactor = Log(format=form), Redactor(["s3cret"])
        handler = log.set_up(settings, redactor, stream=stream, environ=device)
        others = logging.root.handlers[:]
        logging.root.handlers[:] = [handler]  # as in the daemon, where pytest does not listen
        words, fields = f"call 1 a/b: s3cret\n100 % {'x' * log.MAX_TEXT}", {"task_id": 1}
        logger = logging.getLogger("orchestratord.worker")
        try:
            log.info(logger, [words], lambda: fields, [()])
            handler.gather(asyncio.get_running_loop())
            log.info(logger, [words], lambda: fields, [()])
            logger.info("%s", words, extra=fields)
            await asyncio.to_thread(log.info, logger, [words], lambda: fields, [()])
        finally:
            logging.root.handlers[:] = others
            handler.remove()
    lines = (tmp_path / "log").read_text().splitlines()
    same = {re.sub(r"[0-9T:.-]+Z", "TIME", line) for line in lines}
    assert len(lines) == 4
    assert len(same) == 1
    if form == "text":
        (line,) = same
        start = "<6>INFO" if journal else "TIME INFO"
        assert line.startswith(f"{start} worker: call 1 a/b: ***\\n100 % xxx")
    else:
        assert json.loads(lines[0].removeprefix("<6>"))["task_id"] == 1


async def test_a_line_without_a_record_goes_to_whom_it_would_with_one() -> None:
    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            collected.append(record.getMessage())

    collected: list[str] = []
    logger, above, root = (
        logging.getLogger(name) for name in ("orchestratord.worker", "orchestratord", None)
    )
    stream = io.StringIO()
    handler = log.set_up(stream=stream)
    others = root.handlers[:]
    root.handlers[:] = [handler]
    try:
        handler.gather(asyncio.get_running_loop())
        for listened in (logger, above, root):
            listened.addHandler(other := Collecting())
            log.info(logger, [f"to {listened.name}"], dict, [()])
            listened.removeHandler(other)
        for filtered in (logger, handler):
            filtered.addFilter(drop := lambda record: False)
            log.info(logger, ["filtered"], dict, [()])
            filtered.removeFilter(drop)
        handler.setLevel(logging.WARNING)
        log.info(logger, ["below the handler"], dict, [()])
        handler.setLevel(logging.NOTSET)
        handler.adopt(Log(level="warning"), Redactor())
        log.info(logger, ["below the level"], dict, [()])
        handler.adopt(Log(), Redactor())
    finally:
        root.handlers[:] = others
        handler.remove()
    assert collected == ["to orchestratord.worker", "to orchestratord", "to root"]
    words = [line.partition("worker: ")[2] for line in stream.getvalue().splitlines()]
    assert words == collected
