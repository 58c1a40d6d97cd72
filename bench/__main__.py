"""How fast orchestratord is, beside others at the same work.

\b
    python -m bench                     everything, three rounds; how long: docs/performance.md
    python -m bench --quick             orchestratord alone, a tenth of the work, one round

The work is N jobs of one POST of 1 KB to an nginx on this machine, each durably marked done.
"""

from __future__ import annotations

import datetime
import shlex
import sys
from pathlib import Path

import click

from bench import cases
from bench.environment import machine
from bench.environment.folder import DEBIAN, Folder, install_debian
from bench.environment.servers import Missing
from bench.results import rounds, table
from bench.results.report import Report


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="orchestratord alone, a tenth of the work, one round")
@click.option("--only", metavar="NAME,…", help="these alone")
@click.option("--rounds", "count", default=3, show_default=True, help="how often each is run")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("~/.cache/orchestratord-bench"),
    show_default=True,
    help="where the peers are installed",
)
@click.option(
    "--markdown",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write the results into this page, between its two marks",
)
def main(quick: bool, only: str | None, count: int, folder: Path, markdown: Path | None) -> None:
    place = Folder(folder.expanduser())
    found = [*cases.own(quick), *([] if quick else cases.peers(place))]
    if only is not None:
        names = {case.name: case for case in found}
        wanted = [name.strip() for name in only.split(",")]
        if unknown := [name for name in wanted if name not in names]:
            raise click.UsageError(f"{', '.join(unknown)}: there are {', '.join(names)}")
        found = [names[name] for name in wanted]
    peers = {case.name for case in cases.peers(place)} & {case.name for case in found}
    try:
        if peers:
            place.install()
        else:
            install_debian({"nginx": DEBIAN["nginx"]})
        setup = [*machine.machine(), *machine.own_versions()]
        setup += machine.peer_versions(place) if peers else []
        turns = 1 if quick else count
        results = rounds.run(found, turns, lambda line: click.echo(line, err=True))
    except Missing as error:
        raise click.ClickException(str(error)) from None
    command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    report = Report(command, today, found, turns, results, setup)
    click.echo(report.text())
    if markdown is not None:
        table.insert(markdown, "bench", report.markdown())
    if results.failures:
        raise SystemExit(1)


if __name__ == "__main__":
    main(prog_name="python -m bench")
