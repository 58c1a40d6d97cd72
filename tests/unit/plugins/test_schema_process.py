"""The process that checks data by their schemas: what ends it, and who is blamed for that."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from orchestratord_event import schema_process
from orchestratord_event.schema_check import SchemaCheck
from orchestratord_event.schema_process import SchemaProcess

from orchestratord import SchemaTooCostly

pytestmark = pytest.mark.slow

WORDS = {"properties": {"text": {"type": "string", "pattern": r"^(\w+\s?)*$"}}}
CHECK = SchemaCheck("words.json", json.dumps(WORDS))
LONG: dict[str, Any] = {"text": "a" * 5_000}
COSTLY = {"text": "a" * 40 + "!"}
SLOW = """
import sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        while name == "jsonschema" and time.process_time() < {seconds}:
            pass

sys.meta_path.insert(0, Slow())
"""


@pytest.fixture
async def process() -> AsyncIterator[SchemaProcess]:
    process = SchemaProcess()
    yield process
    await process.close()


async def test_a_daemon_that_stood_still_reads_what_was_answered(
    process: SchemaProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await process.problems(CHECK, []) == []
    monkeypatch.setattr(schema_process, "SILENCE", 0.5)
    asked = asyncio.create_task(process.problems(CHECK, [LONG, {"text": 7}]))
    await asyncio.sleep(0)
    time.sleep(1)  # that is what it is about
    assert await asked == [{}, {"text": "7 is not of type 'string'"}]


async def test_one_silence_is_nobody_s_fault_and_a_second_one_is(
    process: SchemaProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_process, "SILENCE", 1.0)
    await process.problems(CHECK, [])
    first = process._process
    first.send_signal(signal.SIGSTOP)
    assert await process.problems(CHECK, [LONG]) == [{}]
    assert process._process is not first
    with pytest.raises(SchemaTooCostly):
        await process.problems(CHECK, [COSTLY])  # of two seconds of CPU


@pytest.mark.parametrize("seconds", [2.5, 1000])
async def test_what_the_start_costs_is_not_the_data_s(
    process: SchemaProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: float
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW.format(seconds=seconds))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if seconds < 100:
        monkeypatch.setattr(schema_process, "SILENCE", 30.0)
        assert await process.problems(CHECK, [{"text": 7}]) == [
            {"text": "7 is not of type 'string'"}
        ]
        return
    monkeypatch.setattr(schema_process, "SILENCE", 1.0)
    with pytest.raises(SchemaTooCostly):  # it does not end, and is ended
        await process.problems(CHECK, [LONG])
