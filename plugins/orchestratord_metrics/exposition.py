"""What was counted, how the daemon is, and its process, as Prometheus reads it."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from orchestratord import Config, MetricSamples, Status, world
from orchestratord_metrics.counters import MAX_SETS, OTHER, PREFIX, Counts, Labels, masked

_SELF = Path("/proc/self")
_TIMES = {
    "endpoint_last_success": "When the last call of an endpoint began that succeeded.",
    "schedule_last_success": "The same, of endpoints with a schedule.",
    "schedule_last_run": "The slot of the last call that a schedule has made.",
    "schedule_next_run": "When a schedule makes its next call.",
    "schedule_missed": "When it was last noticed that slots of a schedule had been missed.",
}
_LANE_GAUGES = {
    "in_flight": "Attempts under way in a lane.",
    "concurrency": "The most of them at once.",
    "breaker_open": "1 while the breaker of a lane is open, else 0.",
    "pace": "How many tasks a second may begin of a lane that refuses more.",
    "rate_limit": "How many calls may begin in its unit.",
    "rate_used": "How many of them count now.",
}


class Exposition(Collector):
    """All metrics of one moment: made on the loop, and rendered wherever there is time."""

    def __init__(
        self,
        counts: Iterable[Counts],
        config: Config,
        status: Mapping[str, Any],
        lanes: Collection[str],
        schedules: Sequence[Mapping[str, Any]] = (),
        successes: Mapping[str, float] | None = None,
        of_plugins: Sequence[MetricSamples] = (),
    ) -> None:
        """
        Args:
            counts: what was counted, which goes on meanwhile.
            config: the configuration in force.
            status: the daemon's status document, with all lanes.
            lanes: those that are named; the others are added up as `other`.
            schedules: as `Control.schedules` has them.
            successes: as `Control.last_successes` has them.
            of_plugins: as `Control.metrics` has them.
        """
        self._of_plugins = of_plugins
        self._counted = [(counted, counted.copy()) for counted in counts]
        self._config = config
        self._status = status
        self._lanes = lanes
        self._schedules = schedules
        self._successes = successes or {}

    def text(self) -> bytes:
        """All of it as text. Thousands of lines take a tenth of a second."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """The families of metrics, as generate_latest wants them."""
        text = cache(self._config.redactor.text)
        for counted, found in self._counted:
            yield _counted(counted, masked(found, text))
        yield from _queue(self._status["queue"])
        yield from self._work()
        meaning = "Endpoints whose calls fail now, and webhooks whose deliveries do."
        yield _by_label("failing", meaning, "kind", self._status["failing_counts"])
        yield from self._last_successes(text)
        yield from _outbox(self._status["outbox"])
        yield from self._configuration()
        yield from self._daemon()
        yield from process_families()
        for own in self._of_plugins:
            make = _counter if own.kind == "counter" else _gauge
            family = make(own.name, own.help, labels=own.labels)
            for labels, number in own.values.items():
                family.add_metric(tuple(map(text, labels)), number)
            yield family

    def _last_successes(self, text: Callable[[str], str]) -> Iterator[Metric]:
        """Of schedules all; of the other endpoints only so many are named."""
        families = {
            name: _gauge(f"{name}_timestamp_seconds", meaning, labels=("endpoint",))
            for name, meaning in _TIMES.items()
        }
        scheduled = {found["endpoint"]: found for found in self._schedules}
        others = (name for name in self._successes if name not in scheduled)
        for name in (*scheduled, *islice(others, MAX_SETS)):
            if (at := self._successes.get(name)) is not None:
                families["endpoint_last_success"].add_metric((text(name),), at)
        for name, found in scheduled.items():
            times = {
                "schedule_last_success": found["last_success_at"],
                "schedule_last_run": found["last_run"],
                "schedule_next_run": found["next_run"],
                "schedule_missed": found["missed"] and found["missed"]["noticed_at"],
            }
            for family, at in times.items():
                if at is not None:
                    seconds = datetime.fromisoformat(at).timestamp()
                    families[family].add_metric((text(name),), seconds)
        yield from families.values()

    def _work(self) -> Iterator[Metric]:
        """What is under way, in each lane; `other` adds up the lanes without a name here."""
        status = self._status
        yield _gauge("in_flight", "Attempts under way.", status["in_flight"])
        yield _gauge("concurrency", "The most attempts at once.", status["concurrency"])
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
            name: _gauge(f"lane_{name}", meaning, labels=("lane",))
            for name, meaning in _LANE_GAUGES.items()
        }
        opened = "How often the breaker of a lane has opened."
        families["openings"] = _counter("lane_breaker_openings", opened, labels=("lane",))
        sums: dict[str, Counter[str]] = {}
        for lane in status["lanes"]:
            name = lane["name"] if lane["name"] in self._lanes else OTHER
            found = sums.setdefault(name, Counter())
            found.update({key: lane[key] for key in ("in_flight", "concurrency", "openings")})
            found.update(breaker_open=lane["breaker"] is not None)
            if lane["overload"] is not None:
                found.update(pace=lane["overload"]["rate"])
            if lane["rate"] is not None:
                found.update(rate_limit=lane["rate"]["times"], rate_used=lane["rate"]["used"])
        for name, found in sums.items():
            for key, count in found.items():
                families[key].add_metric((name,), count)
        yield from families.values()
        scopes = (*status["lanes"], *status["throttled"])
        causes = {
            cause: sum(scope[cause] is not None for scope in scopes)
            for cause in ("breaker", "retry_after", "overload")
        }
        meaning = "Lanes, URLs, endpoints and webhooks that are throttled."
        yield _by_label("throttled", meaning, "cause", causes)

    def _configuration(self) -> Iterator[Metric]:
        config, status = self._config, self._status
        yield _gauge("config_generation", "Which configuration is in force.", config.generation)
        yield _gauge(
            "config_adopted_timestamp_seconds",
            "When it was adopted, since the epoch.",
            config.adopted_at / 1000,
        )
        yield _gauge(
            "config_refused",
            "1 while the files as they stand are refused, else 0.",
            status["config"]["error"] is not None,
        )
        yield _gauge("endpoints", "Endpoints that are declared.", len(config.endpoints))
        yield _gauge("paused_endpoints", "Endpoints that are paused.", len(status["paused"]))

    def _daemon(self) -> Iterator[Metric]:
        status = self._status
        faults = _counter("plugin_faults", "What a plugin did wrong.", labels=("plugin",))
        for plugin in status["plugins"]:
            faults.add_metric((plugin["name"],), plugin["faults"])
        yield faults
        dropped = "Events that came too fast to be counted."
        yield _counter("events_dropped", dropped, status["events_dropped"])
        unheld = "Tasks that ran and that nothing held."
        yield _counter("unheld_claims", unheld, status["unheld_claims"])
        yield _gauge("database_size_bytes", "The queue on disk.", status["database"]["size"])
        yield _gauge(
            "accepting",
            "1 while new calls are accepted, 0 while the disk is full.",
            status["database"]["accepting"],
        )
        ready = "1 while new calls are taken and carried out, else 0."
        yield _gauge("ready", ready, status["health"]["ready"])
        codes = {found["code"]: 1 for found in status["health"]["troubles"]}
        yield _by_label("trouble", "1 for what keeps the daemon from its work.", "code", codes)
        yield _gauge(
            "database_held_back",
            "What keeps the database from cleaning up: transactions, readers, slots.",
            len(status["database"]["holding_back"]),
        )
        yield _gauge("draining", "1 while the daemon is being stopped.", status["draining"])
        build = _gauge("build_info", "Always 1.", labels=("version", "python"))
        build.add_metric((status["version"], platform.python_version()), 1)
        yield build


def _queue(queue: Mapping[str, Any]) -> Iterator[Metric]:
    counts = {name: queue[name] for name in (*map(str, Status), "missed", "resolved")}
    yield _by_label("tasks", "Tasks in the queue.", "status", counts)
    yield _gauge("due_tasks", "Pending tasks whose time has come.", queue["due"])
    yield _gauge(
        "oldest_due_age_seconds",
        "For how long the first of them has been due; 0 where none is.",
        queue["oldest_due_age"] or 0,
    )
    yield _gauge(
        "held_tasks",
        "Pending tasks that would be due if it were their turn in their partition.",
        queue["held"],
    )
    yield _gauge(
        "held_partitions",
        "Partitions that wait for a person, since a task of theirs failed.",
        queue["held_partitions"],
    )


def _outbox(outbox: Mapping[str, Any] | None) -> Iterator[Metric]:
    if outbox is None:
        return
    taken = "Rows of the outbox that this daemon made tasks of."
    yield _counter("outbox_taken", taken, outbox["taken_total"])
    relays = "1 while this daemon relays the outbox, else 0."
    yield _gauge("outbox_relays", relays, outbox["relays"])
    failing = "1 while it cannot be relayed, else 0."
    yield _gauge("outbox_failing", failing, outbox["error"] is not None)
    if outbox["relays"] and outbox["waiting"] is not None:
        meaning = "Rows in the outbox, counted every 10 s."
        rows = {status: outbox[status] for status in ("waiting", "refused")}
        yield _by_label("outbox_rows", meaning, "status", rows)


def _gauge(
    name: str, meaning: str, value: float | None = None, labels: Sequence[str] | None = None
) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}{name}", meaning, value=value, labels=labels)


def _counter(
    name: str, meaning: str, value: float | None = None, labels: Sequence[str] | None = None
) -> CounterMetricFamily:
    return CounterMetricFamily(f"{PREFIX}{name}", meaning, value=value, labels=labels)


def _by_label(
    name: str, meaning: str, label: str, values: Mapping[str, float]
) -> GaugeMetricFamily:
    family = _gauge(name, meaning, labels=(label,))
    for value, number in values.items():
        family.add_metric((value,), number)
    return family


def _counted(counted: Counts, found: Mapping[Labels, list[float]]) -> Metric:
    if not counted.limits:
        counter = CounterMetricFamily(counted.name, counted.help, labels=counted.labels)
        for labels, numbers in found.items():
            counter.add_metric(labels, numbers[0])
        return counter
    histogram = HistogramMetricFamily(counted.name, counted.help, labels=counted.labels)
    limits = [*(str(float(limit)) for limit in counted.limits), "+Inf"]
    for labels, (*numbers, total) in found.items():
        histogram.add_metric(labels, list(zip(limits, accumulate(numbers), strict=True)), total)
    return histogram


def process_families() -> Iterator[Metric]:
    """The process, under the names that all clients of Prometheus use.

    Only what stands below `/proc/self` is read: a hardened unit hides the rest of `/proc`, without
    which the collector of prometheus_client has nothing to say.
    """
    yield CounterMetricFamily(
        "process_cpu_seconds", "User and system CPU time.", value=time.process_time()
    )
    with suppress(OSError):
        pages = (_SELF / "statm").read_text(encoding="ascii").split()
        size = resource.getpagesize()
        yield GaugeMetricFamily(
            "process_virtual_memory_bytes", "Virtual memory.", value=int(pages[0]) * size
        )
        yield GaugeMetricFamily(
            "process_resident_memory_bytes", "Resident memory.", value=int(pages[1]) * size
        )
    with suppress(OSError):
        opened = len(os.listdir(_SELF / "fd"))
        yield GaugeMetricFamily("process_open_fds", "Open file descriptors.", value=opened)
    yield GaugeMetricFamily(
        "process_max_fds",
        "The most file descriptors that may be open.",
        value=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )
    with suppress(OSError):
        yield GaugeMetricFamily(
            "process_start_time_seconds", "When it started, since the epoch.", value=_started_at()
        )


@cache
def _started_at() -> float:
    # The 22nd field, in ticks since the machine started; the name before it may hold spaces.
    fields = (_SELF / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    after_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return round(world.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + after_boot, 2)
