"""What the tests of the commands share."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from orchestratord.cli.main import main

EXAMPLE = Path(__file__).parents[3] / "config"

GOOD = {
    "apis/shop/api.yaml": "base_url: https://shop.example.com\n",
    "apis/shop/endpoints/getOrder.yaml": "path: /orders\n",
}


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    """What a command of `orchestratord` says."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)


def write(folder: Path, files: dict[str, str]) -> Path:
    """Write files into a folder; the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
