"""The configuration: is it good, and who may read and change its files?"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from orchestratord.cli.doctor.case import Case
from orchestratord.cli.doctor.finding import Finding, Findings, fail, many, ok, warn
from orchestratord.errors import Problem

_SHOWN = 3
"""Problems that are quoted; `check` has them all."""

_FILE_REFERENCE = re.compile(r"(?<!\$)\$\{file:([^{}]+)\}")


def check_config(case: Case) -> Findings:
    """Can it be read, and is it good?"""
    errors = [problem for problem in case.problems if problem.severity == "error"]
    warnings = [problem for problem in case.problems if problem.severity == "warning"]
    look = f"see all with: orchestratord check --config {case.folder}"
    if case.config is not None:
        apis, endpoints = len(case.config.apis), len(case.config.endpoints)
        yield ok(f"{case.folder} is good: {many(apis, 'API')}, {many(endpoints, 'endpoint')}")
    elif case.daemon_is_ours and not _refused(case):
        yield warn(
            f"the running daemon has taken it, but read from here it has {_quoted(errors)}",
            f"references are read from this shell's environment, not the daemon's; {look}",
        )
    else:
        yield fail(f"{case.folder} is bad: {_quoted(errors)}", look)
    if warnings:
        yield warn(f"there are warnings: {_quoted(warnings)}", look)


def _refused(case: Case) -> bool:
    return bool(case.status and case.status["config"].get("error"))


def _quoted(problems: list[Problem]) -> str:
    texts = [str(problem) for problem in problems[:_SHOWN]]
    more = len(problems) - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more else "")


def check_files(case: Case) -> Findings:
    """Can others read a secret, or change what the daemon does?"""
    changed = [path for path in _that_matter(case) if _others(path, stat.S_IWOTH)]
    for path in changed:
        yield fail(f"everybody can change {path}", f"chmod o-w {path}")
    secret = [path for path in _with_secrets(case) if _others(path, stat.S_IROTH)]
    for path in secret:
        yield warn(f"everybody can read the secret in {path}", f"chmod o-r {path}")
    if not changed and not secret:
        yield ok("no other user can change a file or read a secret in one")


def _that_matter(case: Case) -> Iterator[Path]:
    """The folders and files that decide what the daemon does, its plugins among them."""
    for folder in (case.folder, *_plugin_folders(case)):
        for root, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith((".", "__"))]
            yield Path(root)
            yield from (Path(root) / name for name in files if not name.startswith("."))


def _plugin_folders(case: Case) -> list[Path]:
    folders = [case.folder / name for name in case.settings.plugins.dirs]
    return [path for path in folders if case.folder not in path.parents]


def _with_secrets(case: Case) -> Iterator[Path]:
    """Files in which a secret is written out, and those that a reference names."""
    if case.config is None:
        return
    named = set()
    for name in case.config.files:
        text = (case.folder / name).read_text(encoding="utf-8", errors="replace")
        if case.config.redactor.text(text) != text:
            yield case.folder / name
        named.update(_FILE_REFERENCE.findall(text))
    for api in case.config.apis.values():
        tls = api.tls
        held = (tls.key or tls.cert) if tls is not None else None
        if held is not None and "${" not in held.name:
            named.add(str(case.folder / held.name))
    yield from (Path(name) for name in sorted(named))


def _others(path: Path, right: int) -> bool:
    """True where whoever is neither the owner nor in the group has this right."""
    try:
        if path.is_symlink():
            path = path.resolve()
        mode = path.stat().st_mode
        if not mode & right or (path.is_dir() and mode & stat.S_ISVTX):
            return False
        # Who cannot pass through the folders above does not come to the file.
        return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.absolute().parents)
    except OSError:
        return False


def check_plugins(case: Case) -> Findings:
    """Are all plugins loaded, and do they behave?"""
    if case.host is None:
        return
    names = []
    for info in case.host.plugins.values():
        if info.status == "failed":
            yield fail(
                f"{info.name} cannot be loaded: {info.error}",
                f"mend or remove it ({info.source}), or name it in plugins.disabled",
            )
        elif info.status == "disabled":
            yield warn(
                f"{info.name} is disabled: its keys are not read and its tasks wait",
                "take it out of plugins.disabled, if that is not meant",
            )
        else:
            names.append(f"{info.name} {info.version}" if info.name != "http" else info.name)
    for told in (case.status or {}).get("plugins") or []:
        if told.get("faults"):
            yield _faults(told["name"], told["faults"], told.get("last_fault"))
    if names:
        yield ok(f"loaded: {', '.join(names)}")


def _faults(name: str, count: int, last: str | None) -> Finding:
    return warn(
        f"{name} has failed {many(count, 'time')} since the daemon started, last in {last}",
        "the log has each of them with its traceback",
    )
