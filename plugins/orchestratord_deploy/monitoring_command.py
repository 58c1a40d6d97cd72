"""`orchestratord rules` and `orchestratord grafana`: what Prometheus and Grafana read."""

from __future__ import annotations

import click

from orchestratord_deploy.shipped_files import shipped


@click.command()
@click.option("--config", hidden=True, expose_value=False)  # as every command
def rules() -> None:
    """Print alert and recording rules for Prometheus."""
    click.echo(_file("rules.yaml"), nl=False)


@click.command()
@click.option("--config", hidden=True, expose_value=False)
def grafana() -> None:
    """Print a dashboard for Grafana, as JSON."""
    click.echo(_file("dashboard.json"), nl=False)


def _file(name: str) -> str:
    return shipped(name, "monitoring", "deploy/monitoring").read_text("utf-8")
