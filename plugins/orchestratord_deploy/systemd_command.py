"""`orchestratord systemd`: the units that come with the package, and a service of them.

The units name one environment, /opt/orchestratord; what is written names the one that runs this.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from orchestratord_deploy.shipped_files import shipped

USER = "orchestratord"
SERVICE, SOCKET, USER_SERVICE = (
    "orchestratord.service",
    "orchestratord.socket",
    "orchestratord-user.service",
)
_PROGRAM = "/opt/orchestratord/bin/orchestratord"
_HOMES = ("/home", "/root", "/run/user")
"""What `ProtectHome=yes` hides from the service."""

_ADD_USER = tuple(
    f"useradd --system --user-group --home-dir /var/lib/{USER} "
    f"--shell /usr/sbin/nologin {USER}".split()
)


class Step(NamedTuple):
    """One thing that is done: a file that is written, or a command that is run."""

    path: Path | None
    text: str
    command: Sequence[str] = ()

    def __str__(self) -> str:
        return " ".join(self.command) if self.path is None else f"write {self.path}"


_config_option = click.option(
    "--config",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="The config folder of the service, instead of /etc/orchestratord or, of a user's, "
    "~/.config/orchestratord.",
)


@click.group()
def systemd() -> None:
    """Install, print or remove the systemd service."""


@systemd.command("print")
@click.argument("unit", type=click.Choice([SERVICE, SOCKET, USER_SERVICE]), default=SERVICE)
@_config_option
def print_(unit: str, config: str | None) -> None:
    """Print a unit, as install would write it."""
    click.echo(unit_text(unit, config), nl=False)


@systemd.command()
@click.option("--user", is_flag=True, help="A service of this user alone, without root.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--force", is_flag=True, help="Replace units that were changed.")
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the files below DIR, as for an image or a package, and run nothing.",
)
@_config_option
def install(user: bool, dry_run: bool, force: bool, root: Path | None, config: str | None) -> None:
    """Write the units, and make the user and the config folder.

    What is there already stays. Nothing is started: the last line says how.
    """
    steps = list(_of_user(root, config) if user else _of_system(root, config))
    if not dry_run:
        hidden = [_program(), *([Path(config).absolute()] if config else [])]
        _look_first(steps, force, hidden if not user and root is None else [])
    for step in steps:
        if step.path is not None and _holds(step.path, step.text):
            click.echo(f"{step.path} is up to date")
            continue
        click.echo(str(step))
        if not dry_run:
            _carry_out(step)
    if root is None:
        flag, default = (" --user", "~/.config/orchestratord") if user else ("", f"/etc/{USER}")
        click.echo(
            "\nNext:\n"
            f"  orchestratord init {config or default}     where there is no configuration yet\n"
            f"  systemctl{flag} enable --now orchestratord"
        )


@systemd.command()
@click.option("--user", is_flag=True, help="The service of this user.")
@click.option("--config", hidden=True, expose_value=False)  # as every command
def uninstall(user: bool) -> None:
    """Stop the service and remove its units; configuration, queue and user stay."""
    manager = ["systemctl", *(["--user"] if user else [])]
    paths = [
        step.path
        for step in (_of_user(None, None) if user else _of_system(None, None))
        if step.path
    ]
    units = [path for path in paths if path.name in (SERVICE, SOCKET) and path.exists()]
    if not units:
        raise click.ClickException(f"there is no unit {paths[0]}")
    steps = [Step(None, "", (*manager, "disable", "--now", *(path.name for path in units)))]
    for step in steps if _manager_runs() else []:
        click.echo(str(step))
        _carry_out(step)
    for path in units:
        path.unlink()
        click.echo(f"removed {path}")
    if _manager_runs():
        _carry_out(Step(None, "", (*manager, "daemon-reload")))


def unit_text(unit: str, config: str | None) -> str:
    """The text of a unit, with the path of this environment's program.

    Args:
        unit: its file's name.
        config: the config folder that the service is told, if it is.
    """
    text = shipped(unit, "units", "systemd").read_text("utf-8")
    words = [str(_program()), "run", *(["--config", os.path.abspath(config)] if config else [])]
    return text.replace(f"{_PROGRAM} run\n", f"{' '.join(map(_word, words))}\n")


def _word(text: str) -> str:
    """A word of a command as systemd reads it."""
    text = text.replace("%", "%%").replace("$", "$$")
    if not set(text) & set(" \t'\"\\;"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _program() -> Path:
    import sysconfig

    return Path(sysconfig.get_path("scripts")) / "orchestratord"


def _of_system(root: Path | None, config: str | None) -> Iterator[Step]:
    top = root or Path("/")
    if root is None and not _user_exists():
        yield Step(None, "", _ADD_USER)
    for unit in (SERVICE, SOCKET):
        yield Step(top / "etc/systemd/system" / unit, unit_text(unit, config))
    if root is None:
        if not os.path.isdir(place := config or f"/etc/{USER}"):  # its owner has set the rights
            yield Step(None, "", ("install", "-d", "-m", "2750", "-o", "root", "-g", USER, place))
        if _manager_runs():
            yield Step(None, "", ("systemctl", "daemon-reload"))


def _of_user(root: Path | None, config: str | None) -> Iterator[Step]:
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folder = home if root is None else root / "etc"
    yield Step(folder / "systemd/user" / SERVICE, unit_text(USER_SERVICE, config))
    if root is None and _manager_runs():
        yield Step(None, "", ("systemctl", "--user", "daemon-reload"))


def _look_first(steps: Sequence[Step], force: bool, of_system: Sequence[Path]) -> None:
    """Raise ClickException where a step would fail, before any is carried out.

    `of_system` has what a service of the system uses; none where it is no such.
    """
    program = _program()
    if not program.is_file():
        raise click.ClickException(f"{program} is not there: install the package first")
    for path in of_system:
        if any(path.is_relative_to(home) for home in _HOMES):
            raise click.ClickException(
                f"the service sees no homes, and {path} is in one: put it elsewhere, such as below "
                "/opt, or say --user"
            )
    if of_system and os.geteuid() != 0:
        raise click.ClickException("a service of the system takes root; --user does not")
    for step in steps:
        if step.path is None and shutil.which(step.command[0]) is None:
            raise click.ClickException(f"there is no program {step.command[0]}: {step}")
        changed = step.path is not None and step.path.exists() and not _holds(step.path, step.text)
        if changed and not force:
            raise click.ClickException(
                f"{step.path} is another one: --force replaces it; what you changed belongs into a "
                "drop-in, which `systemctl edit orchestratord` makes"
            )


def _carry_out(step: Step) -> None:
    import subprocess  # not needed by --help, which imports this module too

    if step.path is None:
        try:
            subprocess.run(step.command, check=True)  # noqa: S603
        except (OSError, subprocess.CalledProcessError) as error:
            raise click.ClickException(f"{step}: {error}") from None
        return
    beside = step.path.with_name(f".{step.path.name}.new")
    try:
        step.path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(step.text, "utf-8")
        beside.replace(step.path)
    except OSError as error:
        from orchestratord import unwritable

        beside.unlink(missing_ok=True)
        raise unwritable(step.path, error) from None


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text("utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def _user_exists() -> bool:
    import pwd

    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def _manager_runs() -> bool:
    return os.path.isdir("/run/systemd/system")
