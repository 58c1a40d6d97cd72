"""The machine: its clock, and the limits that it sets."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import resource
import shutil
import subprocess
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from orchestratord.cli.doctor.installation import Finding, Findings, Installation, fail, ok, warn
from orchestratord.cli.options import counted
from orchestratord.values import world
from orchestratord.values.clock import APART
from orchestratord.values.durations import format_duration

_NO_EARLIER = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""No clock that is right says less."""

_STEP = 0.5
"""Seconds by which two clocks may differ after `_WATCHED` seconds; a busy machine is no step."""

_WATCHED = 0.2
_SPARE_FILES = 200
"""Open files beside those of requests: the database, the control socket's connections, the log."""

_SPARE_WATCHES = 64
_INOTIFY = Path("/proc/sys/fs/inotify")


def check_program(installed: Installation) -> Findings:
    """What runs here."""
    yield ok(
        f"orchestratord {version('orchestratord')}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.release()}"
    )


def check_clock(installed: Installation) -> Findings:
    """Does it go right, and are the time zones there?"""
    wall, steady = world.time(), world.monotonic()
    world.sleep(_WATCHED)
    drift = (world.time() - wall) - (world.monotonic() - steady)
    found = []
    if wall < _NO_EARLIER:
        remedy = "set it, or all waiting tasks will be late"
        found.append(fail(f"the clock says {_shown(wall)}", remedy))
    if abs(drift) > _STEP:
        moved = f"the clock was moved by {drift:+.1f} s during this check"
        found.append(warn(moved, "let one program set it"))
    found += _told((installed.status or {}).get("clock"))
    if _synchronised() is False:
        remedy = "timedatectl set-ntp true, or start the program that keeps the time"
        found.append(warn("systemd says that the clock is not synchronised", remedy))
    try:
        zoneinfo.ZoneInfo("Europe/Paris")
    except (zoneinfo.ZoneInfoNotFoundError, OSError):
        found.append(fail("there is no time zone data", "pip install tzdata"))
    return found or [ok(f"it is {_shown(wall)}")]


def _told(clock: object) -> Iterator[Finding]:
    """What the running daemon has seen of it."""
    if not isinstance(clock, dict):
        return
    ahead, back, last = (clock.get(key) for key in ("machine_ahead", "brought_back", "last_change"))
    remedy = "let NTP set it: timedatectl set-ntp true"
    if isinstance(ahead, int | float) and abs(ahead) > APART:
        whose = "the database's" if clock.get("source") == "database" else "the daemon's time"
        by = format_duration(round(abs(ahead)))
        where = f"{by} {'ahead of' if ahead > 0 else 'behind'} {whose}"
        yield warn(f"this machine's clock is {where}, which the daemon uses", remedy)
    elif last:
        by = format_duration(round(abs(last["by"])))
        way = "forward" if last["by"] > 0 else "back"
        yield warn(f"the clock was put {way} by {by}: {last['what']} at {last['at']}", remedy)
    if back:
        yield warn(
            f"{counted(back['tasks'], 'task')} had times in the future at {back['at']}, "
            "which the daemon brought back",
            f"the clock had been ahead before; {remedy}",
        )


def _shown(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _synchronised() -> bool | None:
    """What systemd says; None where it is not there to be asked."""
    program = shutil.which("timedatectl")
    if program is None or not os.path.isdir("/run/systemd/system"):
        return None
    try:
        told = subprocess.run(  # noqa: S603
            [program, "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(told)


def check_files_limit(installed: Installation) -> Findings:
    """May enough files be open for what is in flight at once?"""
    pid = (installed.status or {}).get("pid")
    limit, whose = _limit_of(pid), f"the daemon, pid {pid},"
    if limit is None:
        limit, whose = resource.getrlimit(resource.RLIMIT_NOFILE)[1], "a daemon started here"
    wanted = installed.settings.concurrency + _SPARE_FILES
    words = f"{whose} may open {limit} files; concurrency {installed.settings.concurrency}"
    if limit != resource.RLIM_INFINITY and limit < wanted:
        yield warn(
            f"{words} needs about {wanted}",
            f"LimitNOFILE={wanted} in the unit, `ulimit -n {wanted}`, or a lower concurrency",
        )
    else:
        yield ok(words)


def _limit_of(pid: object) -> int | None:
    if not isinstance(pid, int):
        return None
    try:
        limits = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^Max open files +(\d+)", limits, re.MULTILINE)
    return int(found[1]) if found else None


def check_inotify(installed: Installation) -> Findings:
    """Are changes of the files noticed at once?"""
    watches = _number(_INOTIFY / "max_user_watches")
    instances = _number(_INOTIFY / "max_user_instances")
    if watches is None or instances is None:
        yield warn(
            "this system does not report changes of files",
            "none is needed: the daemon looks by itself, every 10 s",
        )
        return
    count = sum(1 for _ in os.walk(installed.folder))
    folders = counted(count, "folder")
    raise_it = "raise it with sysctl; until then changes are noticed after up to 10 s"
    if watches < count + _SPARE_WATCHES:
        yield warn(
            f"fs.inotify.max_user_watches is {watches}, for {folders} and others",
            raise_it,
        )
    elif not _instance_left():
        yield warn(f"this user has used up fs.inotify.max_user_instances, {instances}", raise_it)
    else:
        yield ok(f"{watches} watches and {instances} instances; {folders} to watch")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _instance_left() -> bool:
    """True unless the kernel refuses to watch one thing more for this user."""
    library = ctypes.CDLL(None, use_errno=True)
    handle = library.inotify_init1(os.O_CLOEXEC)
    if handle >= 0:
        os.close(handle)
    return handle >= 0 or ctypes.get_errno() != errno.EMFILE
