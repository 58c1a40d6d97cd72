"""What stands around a daemon: a service of systemd, rules for Prometheus, a dashboard for Grafana.

systemd_command     the units, the user and the folders, installed
monitoring_command  rules and the dashboard, printed
shipped_files       where all of these are
"""

from __future__ import annotations

from collections.abc import Iterable

import click

from orchestratord import hookimpl


@hookimpl
def register_commands() -> Iterable[click.Command]:
    from orchestratord_deploy.monitoring_command import grafana, rules
    from orchestratord_deploy.systemd_command import systemd

    return [grafana, rules, systemd]
