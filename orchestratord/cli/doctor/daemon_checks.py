"""The control socket, the API over TCP, and what the daemon behind them says."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestratorctl.socket_client import is_socket, who_may
from orchestratord.cli.doctor.installation import Findings, Installation, Unready, fail, ok, warn
from orchestratord.cli.doctor.queue_checks import nearest_folder
from orchestratord.config.validate.bind_address import parse_bind
from orchestratord.config.validate.socket_path import length_problem
from orchestratord.engine.feedback import LASTING_MS
from orchestratord.queue.daemon_health import Code
from orchestratord.values import world
from orchestratord.values.clock import rfc3339

_REMEDIES = {
    Code.FULL: "make room, or shorten `retention`",
    Code.READ_ONLY: "make its file and file system writable for the daemon's user",
    Code.FAILING: "look into the kernel's log: dmesg",
    Code.LOCKED: "end the program that has locked it; a session by pg_terminate_backend(PID)",
}
_ELSE = "it goes on by itself once that is over; its log says more"

_TRY_AGAIN = (
    "to have it tried again, stop the daemon, run the SQL `UPDATE chores SET due = 0, deaths = 0 "
    "WHERE id"
)

_START = "start it with `systemctl start orchestratord` or `orchestratord run`"


def check_socket(installed: Installation) -> Findings:
    """Can it be there, and does a daemon listen?"""
    path = installed.socket
    if (wrong := length_problem(path)) is not None:
        what, _, remedy = wrong.rpartition(": ")
        yield fail(what, remedy)
        return
    yield from _folder(path)
    if installed.status is not None:
        yield ok(f"a daemon answers at {path}")
    elif installed.refusal is not None:
        yield from _refusal(path, installed.refusal)


def _folder(path: Path) -> Findings:
    folder = path.parent
    if not folder.is_dir():
        nearest = nearest_folder(path)
        if not os.access(nearest, os.W_OK | os.X_OK):
            yield warn(
                f"there is no {folder}, and this user cannot make it in {nearest}",
                "the daemon's user, or systemd, has to; or set control_socket",
            )
        return
    status = folder.stat()
    others = stat.S_IWOTH if status.st_gid == os.getegid() else stat.S_IWOTH | stat.S_IWGRP
    if status.st_mode & others and not status.st_mode & stat.S_ISVTX:
        yield warn(
            f"other users can put a socket of their own into {folder}",
            f"chmod go-w {folder}",
        )


def _refusal(path: Path, error: OSError) -> Findings:
    if isinstance(error, PermissionError):
        remedy = who_may(os.fspath(path))
        yield warn(f"this user may not use {path}", remedy[:1].lower() + remedy[1:].rstrip("."))
    elif error.errno == errno.ECONNREFUSED and is_socket(path):
        yield warn(f"{path} was left behind: no daemon listens", f"{_START}; it takes its place")
    elif isinstance(error, FileNotFoundError | NotADirectoryError):
        yield warn(f"no daemon runs: there is no {path}", _START)
    elif isinstance(error, Unready):
        yield fail(
            f"a daemon is up at {path}, and cannot work: {error}",
            "it goes on by itself once that is over; its log says since when",
        )
    elif not is_socket(path):
        yield fail(f"{path} is not a socket", "remove it, or set control_socket")
    else:
        why = "it hangs, or has too many" if isinstance(error, TimeoutError) else error.strerror
        yield fail(
            f"the process that listens at {path} does not answer: {why}",
            "look into its log: journalctl -u orchestratord",
        )


def check_http(installed: Installation) -> Findings:
    """Who can reach the API over TCP?"""
    http = installed.settings.http
    if http is None:
        return
    address, _ = parse_bind(http.bind)
    if address.is_loopback:
        yield ok(f"the API is at http://{http.bind}, for this machine alone, with a token")
    else:
        yield warn(
            f"the API is at http://{http.bind}, and tokens pass over the network unencrypted",
            "bind 127.0.0.1 and put a proxy with TLS before it; name it in http.hosts",
        )


def check_daemon(installed: Installation) -> Findings:
    """What does the daemon report of itself?"""
    status = installed.status
    if status is None:
        return
    config: dict[str, Any] = status.get("config") or {}
    there, here = status.get("version"), version("orchestratord")
    yield ok(
        f"pid {status.get('pid')}, version {there}, up for {status.get('uptime', 0):,.0f} s, "
        f"generation {config.get('generation')}"
    )
    if there != here:
        yield warn(f"it runs version {there}, and {here} is installed", "restart it")
    if not installed.daemon_is_ours:
        yield warn(
            f"it has read another folder: {config.get('folder')}",
            "name that one with --config, or set another control_socket",
        )
    if config.get("error"):
        yield fail(
            f"it has refused the files since {config['error'].get('at')}; "
            f"generation {config.get('generation')} goes on",
            "correct them; `orchestratord check` says where",
        )
    if config.get("restart_required"):
        yield warn(
            f"it keeps old values of {', '.join(config['restart_required'])}",
            "`orchestratorctl upgrade`, or a restart, takes the new ones",
        )
    for breaker in status.get("breakers") or ():
        yield warn(
            f"{breaker.get('lane')} is down since {breaker.get('since')}: {breaker.get('why')}; "
            f"{breaker.get('due')} endpoints or webhooks wait for it",
            "nothing is lost meanwhile; `orchestratorctl watch` shows when it is back",
        )
    lately = rfc3339(round(world.time() * 1000) - LASTING_MS)
    for scope in (*(status.get("lanes") or ()), *(status.get("throttled") or ())):
        if (overload := scope.get("overload")) and overload["since"] < lately:
            yield warn(
                f"{scope.get('name')} is slowed to {overload.get('rate'):g} tasks a second since "
                f"{overload.get('since')}: it refuses more with 429 or 503",
                "its rate rises by itself once that ends; `orchestratorctl resume "
                f"{scope.get('name')}` lifts it now, `pace: off` in its YAML for good",
            )
    yield from _ended_services(status)
    yield from _stuck_chores(status)
    if status.get("draining"):
        yield warn(
            "it is draining: it begins nothing new",
            "wait until it has ended",
            trouble="draining",
        )
    for trouble in (status.get("health") or {}).get("troubles") or ():
        if trouble["code"] != "draining":
            since = f" since {trouble['since']}" if trouble.get("since") else ""
            yield fail(
                f"it is not ready{since}: {trouble['why']}",
                _REMEDIES.get(trouble["code"], _ELSE),
                trouble=trouble["code"],
            )


def _stuck_chores(status: Mapping[str, Any]) -> Findings:
    for chore in status.get("stuck_chores") or ():
        yield warn(
            f"the chore {chore['kind']} {chore['subject']} was set aside: daemons have died at it",
            f"look in the log for what ended them; {_TRY_AGAIN} = {chore['id']}`, and start it",
        )


def _ended_services(status: Mapping[str, Any]) -> Findings:
    for plugin in status.get("plugins") or ():
        for service in plugin.get("services") or ():
            if service.get("state") == "waiting":
                yield warn(
                    f"the service {service.get('name')} of the plugin {plugin.get('name')} ended: "
                    f"{service.get('error')}",
                    "the daemon starts it again; correct the plugin, or disable it",
                )
