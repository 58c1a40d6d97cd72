"""The configuration, its files, its plugins, and what it needs: certificates and databases."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestratord.cli.doctor.installation import Findings, Installation, fail, ok, warn
from orchestratord.cli.file_modes import changed_by_others, others_may
from orchestratord.cli.options import counted, summary
from orchestratord.errors import Problem
from orchestratord.plugin.executor import Need
from orchestratord.values.certificate import certificates, ends

_SHOWN = 3
"""Problems that are quoted; `check` has them all."""

_SOON = timedelta(days=14)

_FILE_REFERENCE = re.compile(r"(?<!\$)\$\{file:([^{}]+)\}")


def check_config(installed: Installation) -> Findings:
    """Can it be read, and is it good?"""
    errors = [problem for problem in installed.problems if problem.severity == "error"]
    warnings = [problem for problem in installed.problems if problem.severity == "warning"]
    look = f"see all with: orchestratord check --config {installed.folder}"
    if installed.config is not None:
        yield ok(summary(installed.config))
    elif installed.daemon_is_ours and not _refused(installed):
        yield warn(
            f"the running daemon has accepted it, but read from here it has {_quoted(errors)}",
            f"references are read from this shell's environment, not the daemon's; {look}",
        )
    else:
        yield fail(f"{installed.folder} is bad: {_quoted(errors)}", look)
    if warnings:
        yield warn(f"there are warnings: {_quoted(warnings)}", look)


def _refused(installed: Installation) -> bool:
    return bool(installed.status and installed.status["config"].get("error"))


def _quoted(problems: list[Problem]) -> str:
    texts = [str(problem) for problem in problems[:_SHOWN]]
    more = len(problems) - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more else "")


def check_files(installed: Installation) -> Findings:
    """Can others read a secret, or change what the daemon does?"""
    changed = list(changed_by_others(installed.folder, installed.settings.plugins.dirs))
    for path in changed:
        yield fail(f"every user can change {path}", f"chmod o-w {path}")
    secret = [path for path in _with_secrets(installed) if others_may(path, stat.S_IROTH)]
    for path in secret:
        yield warn(f"every user can read the secret in {path}", f"chmod o-r {path}")
    if not changed and not secret:
        yield ok("no other user can change a file or read a secret in one")


def _with_secrets(installed: Installation) -> Iterator[Path]:
    """Files in which a secret is written out, and those that a reference names."""
    if installed.config is None:
        return
    named = set()
    for name in installed.config.files:
        text = (installed.folder / name).read_text(encoding="utf-8", errors="replace")
        if installed.config.redactor.text(text) != text:
            yield installed.folder / name
        named.update(_FILE_REFERENCE.findall(text))
    for api in installed.config.apis.values():
        tls = api.tls
        held = (tls.key or tls.cert) if tls is not None else None
        if held is not None and "${" not in held.name:
            named.add(str(installed.folder / held.name))
    yield from (Path(name) for name in sorted(named))


def check_plugins(installed: Installation) -> Findings:
    """Are all plugins loaded, and do they behave?"""
    if installed.host is None:
        return
    names = []
    for info in installed.host.plugins.values():
        if info.status == "failed":
            yield fail(
                f"{info.name} cannot be loaded: {info.error}",
                f"repair or remove it ({info.source}), or name it in plugins.disabled",
            )
        elif info.status == "disabled":
            yield warn(
                f"{info.name} is disabled: its keys are not read and its tasks wait",
                "if you did not mean that, remove it from plugins.disabled",
            )
        else:
            names.append(f"{info.name} {info.version}" if info.name != "http" else info.name)
    for told in (installed.status or {}).get("plugins") or []:
        here = installed.host.plugins.get(told["name"])
        if here is not None and told["version"] not in (here.version, "?"):
            yield warn(
                f"the daemon runs {told['name']} {told['version']}, and {here.version} is "
                "installed",
                "`orchestratorctl upgrade` starts it",
            )
        if told.get("faults"):
            yield warn(
                f"{told['name']} has failed {counted(told['faults'], 'time')} since the daemon "
                f"started, last in {told.get('last_fault')}",
                "the log has the traceback of each",
            )
    if names:
        yield ok(f"loaded: {', '.join(names)}")


def check_certificates(installed: Installation) -> Findings:
    """Do some end soon, or have they ended?"""
    now = datetime.now(UTC)
    renew = "renew it; a running daemon takes a new file by itself"
    found = list(_ends(installed))
    for what, date in found:
        if date < now:
            yield fail(f"{what} expired on {date:%Y-%m-%d}", renew)
        elif date < now + _SOON:
            yield warn(f"{what} expires on {date:%Y-%m-%d}", renew)
    first = min((date for _, date in found), default=now)
    if first >= now + _SOON:
        count = counted(len(found), "certificate")
        yield ok(f"{count} of APIs; the first to end does so on {first:%Y-%m-%d}")


def _ends(installed: Installation) -> Iterator[tuple[str, datetime]]:
    """When each file ends: a chain with its first certificate, authorities with the last one."""
    for api in installed.config.apis.values() if installed.config is not None else ():
        if api.tls is None:
            continue
        for key, file in (("ca", api.tls.ca), ("cert", api.tls.cert)):
            found = [ends(one) for one in certificates(file.content)] if file is not None else []
            dates = [date for date in found if date is not None]
            if file is not None and dates:
                date = max(dates) if key == "ca" else dates[0]
                yield f"tls.{key} of {api.name} ({file.name})", date


def check_needs(installed: Installation) -> Findings:
    """Each executor knows what it needs, and tries it."""
    if installed.host is None or installed.config is None:
        return
    for executor in installed.host.registry.executors:
        yield from findings_of(executor.needs(installed.config))


def findings_of(needs: Iterable[Need]) -> Findings:
    """What plugins say of what they need."""
    for need in needs:
        told = warn if need.severity == "warning" else fail
        words = f"{need.what}: {need.fault}" if need.what else need.fault
        yield told(words, need.remedy) if need.fault else ok(need.what)
