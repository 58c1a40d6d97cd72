"""What it costs to look into an answer, on the event loop and beside it.

    python -m bench.answers

Three tables: how long JSON is read by the library and in pieces; how long `success_if` takes on the
loop and in the thread for long work, by the size of the answer; and the longest time for which the
loop did nothing else while 60 answers of a megabyte came at once, on it and beside it.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from orchestratord.plugin.long_work import off_loop
from orchestratord.values.jmespath_expression import Expression
from orchestratord.values.json_body import parse_json

SIZES = (1, 4, 16, 32, 64, 256, 1024)
"""KiB."""
ROUNDS = 5
AT_ONCE = 60
SUCCESS_IF = Expression("length(items[?status=='failed']) == `0`")

WORST = {
    "items": lambda size: items(size),
    "empty lists": lambda size: "[" + "[]," * (size // 3) + "1]",
    "numbers": lambda size: "[" + "1.5," * (size // 4) + "1]",
    "texts": lambda size: "[" + '"a",' * (size // 4) + "1]",
    "nested": lambda size: "[" + '{"a":{"b":{"c":1}}},' * (size // 20) + "1]",
}
"""What an answer may consist of → a text of so many bytes."""


def items(size: int) -> str:
    """An answer with small items, of so many bytes."""
    return json.dumps({"items": [{"id": n, "status": "ok"} for n in range(size // 30)]})


def seconds(work: Callable[[str], Any], text: str) -> float:
    """How long work on a text takes, the median of some times."""
    took: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work(text)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def judge(text: str) -> bool:
    """What is done with an answer."""
    return SUCCESS_IF.holds(parse_json(text))


async def longest_wait(work: Callable[[str], Awaitable[Any]], text: str) -> tuple[float, float]:
    """How long work on many answers takes, and for how long the loop did nothing else."""
    longest, ended = 0.0, False

    async def beat() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not ended:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    beating = asyncio.create_task(beat())
    await asyncio.sleep(0.05)
    began = time.perf_counter()
    await asyncio.gather(*(work(text) for _ in range(AT_ONCE)))
    took, ended = time.perf_counter() - began, True
    await beating
    return took, longest


async def _on_loop(text: str) -> bool:
    return judge(text)


async def _in_thread(text: str) -> bool:
    return await off_loop(judge, text)


async def _compare() -> None:
    print("\nsuccess_if        on the loop   in the thread")
    for size in SIZES:
        text = items(size << 10)
        on_loop = seconds(judge, text)
        took: list[float] = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            await off_loop(judge, text)
            took.append(time.perf_counter() - began)
        print(f"{size:8} KiB {on_loop * 1e3:12.2f} ms {statistics.median(took) * 1e3:12.2f} ms")
    text = items(1 << 20)
    for words, work in (("on the loop", _on_loop), ("in the thread", _in_thread)):
        whole, longest = await longest_wait(work, text)
        print(
            f"{AT_ONCE} answers of 1 MiB {words}: {whole:.1f} s, and the loop stood still for up "
            f"to {longest * 1e3:.0f} ms"
        )


def main() -> None:
    """Print the tables."""
    print("JSON of 1 MiB      the library    in pieces")
    for name, make in WORST.items():
        text = make(1 << 20)
        whole, pieces = seconds(json.loads, text), seconds(parse_json, text)
        print(f"{name:14} {whole * 1e3:12.1f} ms {pieces * 1e3:10.1f} ms")
    asyncio.run(_compare())


if __name__ == "__main__":
    main()
