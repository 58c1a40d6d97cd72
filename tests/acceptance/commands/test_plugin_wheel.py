"""A shipped plugin as a wheel of its own, beside a product that was built without it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
OFFLINE = ["--no-index", "--no-deps", "--no-build-isolation"]
NAME, MODULE = "openapi", "orchestratord_openapi"
OF_PRODUCT = "config deploy docs orchestratord orchestratorctl plugins scripts/docs systemd".split()
OF_PLUGIN = f"""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "orchestratord-{NAME}"
version = "2.0.0"
dependencies = ["orchestratord>=1,<2"]

[project.entry-points.orchestratord]
{NAME} = "{MODULE}"

[tool.hatch.build.targets.wheel]
packages = ["{MODULE}"]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the product alone, and the plugin's wheel beside it."""
    folder = tmp_path_factory.mktemp("apart")
    product, plugin = folder / "product", folder / "plugin"
    left = shutil.ignore_patterns("__pycache__", "images")
    for name in OF_PRODUCT:
        shutil.copytree(ROOT / name, product / name, ignore=left)
    for name in ("README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, product)
    lines = (ROOT / "pyproject.toml").read_text().splitlines(keepends=True)
    (product / "pyproject.toml").write_text("".join(one for one in lines if MODULE not in one))
    plugin.mkdir()
    shutil.move(product / "plugins" / MODULE, plugin)
    (plugin / "pyproject.toml").write_text(OF_PLUGIN)
    for source in (product, plugin):
        subprocess.run([*PIP, "wheel", *OFFLINE, "-w", folder, source], check=True, timeout=120)
    venv.create(folder / "venv", with_pip=False)
    (site,) = folder.glob("venv/lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install(folder, "orchestratord-1*.whl")
    # Its tests alone, where no checkout is found instead of what was installed.
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=left)
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=left)
    return folder


def install(folder: Path, wheel: str) -> None:
    (found,) = folder.glob(wheel)
    python = folder / "venv/bin/python"
    options = ["install", "--no-index", "--no-deps"]
    subprocess.run([*PIP, "--python", python, *options, found], check=True, timeout=120)


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    program, *words = command
    return subprocess.run(
        [folder / "venv/bin" / program, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_shipped_plugin_is_a_wheel_of_its_own(place: Path) -> None:
    (place / "empty/apis").mkdir(parents=True)
    config = ("--config", str(place / "empty"))
    without = run(place, "orchestratord", "import", "openapi", "x.json", *config)
    assert (without.returncode, "No such command 'import'" in without.stderr) == (2, True)
    assert NAME not in run(place, "orchestratord", "plugins", *config).stdout
    install(place, "orchestratord_openapi-*.whl")
    listed = run(place, "orchestratord", "plugins", *config).stdout
    assert re.search(rf"^{NAME} +2\.0\.0 +loaded +entry point", listed, re.MULTILINE)
    where = run(place, "python", "-c", f"import {MODULE}, orchestratord; print({MODULE}.__file__)")
    assert str(place / "venv") in where.stdout
    file = "tests/unit/plugins/test_openapi_plugin.py"
    tested = run(place, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", file)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert re.search(r"^2\d passed", tested.stdout, re.MULTILINE)
