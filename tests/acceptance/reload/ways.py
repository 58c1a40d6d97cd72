"""Every way in which a configuration changes on a disk: taken up each time, and once each time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import closing

from tests.acceptance.commands.manager import Manager
from tests.acceptance.daemon import Daemon
from tests.acceptance.waiting import until

FILE = "apis/shop/endpoints/get.yaml"
Change = Callable[[int], None]
Way = Callable[[Daemon], Change]
"""Prepares a stopped daemon's folder; what comes back makes the file say `path: /N`."""


def text(number: int) -> str:
    return f"path: /{number}\n"


def in_place(daemon: Daemon) -> Change:
    return lambda n: (daemon.config / FILE).write_text(text(n)) and None


def vim(daemon: Daemon) -> Change:
    """With `backupcopy=no`: the old file is renamed away, and a new one written under its name."""
    file = daemon.config / FILE

    def change(n: int) -> None:
        swap, backup = file.with_name(f".{file.name}.swp"), file.with_name(f"{file.name}~")
        swap.write_bytes(b"b0VIM")
        file.rename(backup)
        file.write_text(text(n))
        backup.unlink()
        swap.unlink()

    return change


def rename_onto(daemon: Daemon) -> Change:
    """As VS Code where it saves atomically, sed -i, and most deployment tools do."""
    file = daemon.config / FILE

    def change(n: int) -> None:
        other = file.with_name(f"{file.name}.tmp-{n}")
        other.write_text(text(n))
        with other.open() as written:
            os.fsync(written.fileno())
        other.replace(file)

    return change


def by_steps(daemon: Daemon) -> Change:
    """Truncated, then written bit by bit: what is half there is no error."""
    file = daemon.config / FILE

    def change(n: int) -> None:
        with file.open("w") as open_file:
            for character in text(n) + "# and a comment that is long enough to take its time\n":
                open_file.write(character)
                open_file.flush()

    return change


def git_checkout(daemon: Daemon) -> Change:
    def git(*words: str) -> None:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
        subprocess.run(
            ["git", *identity, "-C", str(daemon.config), *words],
            check=True,
            capture_output=True,
            env={**daemon.environ, "GIT_CONFIG_GLOBAL": "/dev/null"},
        )

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")

    def change(n: int) -> None:
        # Another branch, so that the checkout alone touches the work tree.
        git("checkout", "-q", "-b", f"b{n}")
        (daemon.config / FILE).write_text(text(n))
        git("commit", "-qam", str(n))
        git("checkout", "-q", "-")
        git("checkout", "-q", f"b{n}")

    return change


def config_map(daemon: Daemon) -> Change:
    """As Kubernetes mounts one: files lead through `..data`, which is moved onto a new folder."""
    config = daemon.config
    real = config / "..0"
    shutil.move(config / "apis", real / "apis")
    (config / "..data").symlink_to(real.name)
    (config / "apis").symlink_to("..data/apis")

    def change(n: int) -> None:
        old = config / os.readlink(config / "..data")
        new = config / f"..{n}"
        shutil.copytree(old, new)
        (new / FILE).write_text(text(n))
        (config / "..data_tmp").symlink_to(new.name)
        (config / "..data_tmp").replace(config / "..data")
        shutil.rmtree(old)

    return change


def replaced_folder(daemon: Daemon) -> Change:
    def change(n: int) -> None:
        new, old = daemon.home / "new", daemon.home / "old"
        shutil.copytree(daemon.config, new)
        (new / FILE).write_text(text(n))
        daemon.config.rename(old)
        new.rename(daemon.config)
        shutil.rmtree(old)

    return change


def without_events(daemon: Daemon) -> Change:
    """The file leads out of the folder; nothing tells of a change there but a look at it."""
    outside = daemon.home / "outside.yaml"
    (daemon.config / FILE).rename(outside)
    (daemon.config / FILE).symlink_to(outside)
    return lambda n: outside.write_text(text(n)) and None


FEW_WATCHES = ("unshare", "-Ur", "sh", "-c",
               'echo 2 > /proc/sys/user/max_inotify_watches && exec "$@"', "sh")  # fmt: skip
"""Runs a program in a namespace whose user may watch two folders and no more."""


def can_be_limited() -> bool:
    """Whether this machine has such namespaces."""
    trial = subprocess.run([*FEW_WATCHES, "true"], capture_output=True, check=False)
    return trial.returncode == 0


def few_watches(daemon: Daemon) -> Change:
    """The system has no inotify watch left for the folder that the file is in."""
    daemon.wrapper = [*FEW_WATCHES]
    return in_place(daemon)


def by_signal(daemon: Daemon) -> Change:
    def change(n: int) -> None:
        (daemon.config / FILE).write_text(text(n))
        daemon.signal(signal.SIGHUP)

    return change


def by_command(daemon: Daemon) -> Change:
    def change(n: int) -> None:
        (daemon.config / FILE).write_text(text(n))
        ended = daemon.ctl("reload", "--diff")
        assert ended.code == 0, ended.err
        assert f'+ path: "/{n}"' in ended.out  # the watcher may have been first

    return change


WAYS: dict[str, tuple[Way, set[str]]] = {
    "a save in place": (in_place, {"file change"}),
    "vim": (vim, {"file change"}),
    "a rename onto the file": (rename_onto, {"file change"}),
    "a slow write": (by_steps, {"file change"}),
    "git checkout": (git_checkout, {"file change"}),
    "a ConfigMap": (config_map, {"file change"}),
    "a replaced folder": (replaced_folder, {"file change", "poll"}),
    "no events": (without_events, {"poll"}),
    "no watches left": (few_watches, {"poll"}),
    "HUP": (by_signal, {"SIGHUP", "file change"}),
    "the command": (by_command, {"command", "file change"}),
}
"""Each way, and which causes it may be told under."""


def go(daemon: Daemon, way: str, rounds: int) -> int:
    """Change the endpoint shop/get of a stopped daemon so many times in one way.

    Each change has to be taken up, and once. Returns how many reloads that took.
    """
    prepare, causes = WAYS[way]
    change = prepare(daemon)
    manager = Manager(daemon.home / "notify")
    daemon.environ["NOTIFY_SOCKET"] = str(manager.path)
    with closing(manager.socket):
        daemon.start()
        started = daemon.status()["config"]["generation"]
        for n in range(1, rounds + 1):
            change(n)
            until(
                lambda n=n: daemon.get("/v1/endpoints/shop/get").json()["path"] == f"/{n}",  # type: ignore[misc]
                f"{way}, round {n}",
            )
            manager.listen()
            config = daemon.status()["config"]
            assert config["error"] is None
            # Just after the start the folder is looked at once in any case.
            assert config["cause"] in (causes if n > 1 else causes | {"file change"})
            assert config["changes"]["changed"] == ["shop/get"]
            assert config["changes"]["counts"] == {"added": 0, "removed": 0, "changed": 1}
        # No reload that was not needed, and none that comes late: this one is the last.
        daemon.reload()
        assert daemon.status()["config"]["generation"] == started + rounds
        reloads = manager.states().count("RELOADING")
        allowed = 2 * rounds if way == "the command" else rounds
        assert rounds < reloads <= allowed + 1, f"{reloads - 1} reloads for {rounds} changes"
        return reloads - 1
