"""Where the time of a delivery goes.

\b
    python -m bench.code.profile             20,000 webhook deliveries, under py-spy; half a minute

py-spy, which is installed into a folder of the benchmark's own, looks 500 times a second at which
thread has the interpreter, and at what it does. What holds it least is not seen: waiting for
receivers, and for the disk.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from bench.environment import machine
from bench.environment.daemon import SECRET, TEXT, daemon, declare_post, enqueue, succeeded, verify
from bench.environment.servers import Nginx
from bench.measures.drain import drain
from bench.results.table import Table, insert
from orchestratord.model.task import NewTask

COUNT = 20_000
RATE = 500
"""Looks a second."""
PROFILER = "py-spy>=0.4,<0.5"

AREAS: Mapping[str, Sequence[str]] = {
    "the event loop: tasks, callbacks, select": ("asyncio/", "selectors.py", "threading.py"),
    "the client: sending, parsing, its pool": ("orchestratord/http/", "asyncio/selector_events.py"),
    "an attempt: its course, its decision": ("orchestratord/engine/", "orchestratord/model/"),
    "requests and answers as objects": ("orchestratord/model/http_message.py",),
    "calling hooks, and checking what they return": ("orchestratord/plugin/",),
    "the webhooks plugin: signature, health": ("orchestratord_webhooks/", "hmac.py"),
    "slots, lanes, the bookkeeping of what runs": (
        "orchestratord/engine/lanes/", "orchestratord/engine/worker.py",
        "orchestratord/engine/new/enqueue.py", "orchestratord/engine/feedback.py",
    ),
    "what is kept of an answer, secrets masked": (
        "orchestratord/engine/stored_answer.py", "orchestratord/values/redact.py",
    ),
    "the store: statements, rows to tasks": ("orchestratord/queue/",),
    "events, metrics, rates": (
        "orchestratord/plugin/event_bus.py", "orchestratord/model/event.py",
        "orchestratord/engine/task_events.py", "orchestratord/engine/stats.py",
        "orchestratord_metrics/", "orchestratord_tracing/",
    ),
    "the log": ("orchestratord/log.py", "logging/"),
}  # fmt: skip
"""Which files, and those below which folders, the work is done in; the longest path decides. The
innermost frame that is of any of them is charged."""
OTHER = "the rest"


@click.command(help=__doc__)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("~/.cache/orchestratord-bench"),
    show_default=True,
    help="where the profiler is installed",
)
@click.option(
    "--markdown",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write the results into this page, between its two marks",
)
def main(folder: Path, markdown: Path | None) -> None:
    profiler = _install(folder.expanduser())
    with tempfile.TemporaryDirectory() as home, Nginx(Path(home) / "nginx") as nginx:
        samples, rate = _measure(Path(home) / "daemon", nginx, profiler)
    total = samples.total()
    table = Table(("the interpreter is held by", "share", "µs for one"), [])
    for area, seen in samples.most_common():
        table.rows.append((area, f"{seen / total:.0%}", f"{seen / RATE / COUNT * 1e6:.0f}"))
    table.rows.append(("all of it", "100%", f"{total / RATE / COUNT * 1e6:.0f}"))
    words = f"{COUNT:,} deliveries, {rate:,.0f}/s with the profiler beside them"
    click.echo(f"{table.text()}\n\n{words}")
    if markdown is not None:
        command = shlex.join(["python", "-m", "bench.code.profile", *sys.argv[1:]])
        day = datetime.now(UTC).date().isoformat()
        about = "\n".join(f"- {line}" for line in (words, *machine.machine()))
        insert(
            markdown, "bench.code.profile", f"`{command}`, {day}:\n\n{table.markdown()}\n\n{about}"
        )


def _measure(home: Path, nginx: Nginx, profiler: Path) -> tuple[Counter[str], float]:
    webhook = {"name": "told", "phase": "after_request", "url": nginx.url(), "secret": SECRET}
    stacks = home.with_name("stacks")
    with daemon(home) as made:
        declare_post(made, nginx, webhooks=[webhook])
        payload = json.dumps({"text": TEXT})
        enqueue(
            made,
            (
                NewTask(
                    kind="webhook", endpoint_id="bench/post", webhook="told", phase="after_request",
                    payload=payload, max_attempts=10,
                )
                for _ in range(COUNT)
            ),
        )  # fmt: skip
        made.launch()
        looking = subprocess.Popen(  # noqa: S603
            [profiler, "record", "--pid", str(made.pid), "--gil", "--rate", str(RATE), "--format",
             "raw", "--duration", "3600", "--output", str(stacks)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            drained = drain(nginx, COUNT, lambda: COUNT - succeeded(made), [made.pid])
            made.stop()
            looking.wait(timeout=60)
        finally:
            looking.kill()
            looking.wait()
        verify(made, COUNT)
    samples: Counter[str] = Counter()
    for line in stacks.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        samples[area_of(frames.split(";"))] += int(count)
    return samples, drained.rate


def area_of(frames: Sequence[str]) -> str:
    """What the time of a stack is charged to; `frames` are py-spy's, the innermost last."""
    # The file of the event loop is in every stack, and the client's part of asyncio in many.
    for frame in reversed(frames):
        found = [
            (len(path), area) for area, paths in AREAS.items() for path in paths if path in frame
        ]
        if found:
            return max(found)[1]
    return OTHER


def _install(folder: Path) -> Path:
    place = folder / "profiler"
    if not (place / "bin" / "py-spy").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--target", str(place), PROFILER], check=True)  # noqa: S603
    return place / "bin" / "py-spy"


if __name__ == "__main__":
    main(prog_name="python -m bench.code.profile")
