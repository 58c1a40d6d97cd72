"""Shipped plugins as wheels of their own, beside a product that was built without them."""

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
TESTS = {
    "openapi": ["tests/unit/plugins/test_openapi_plugin.py"],
    "outbox": [
        "tests/unit/plugins/test_outbox_relay.py",
        "tests/unit/cli/test_cli_outbox.py",
        "tests/acceptance/outbox/test_outbox.py::test_what_is_committed_is_called_and_nothing_else",
    ],
}
"""Plugin → what holds of it wherever it comes from."""
COMMAND = {"openapi": ("import", "openapi", "x.json"), "outbox": ("outbox", "schema")}
OF_PRODUCT = "config deploy docs orchestratord orchestratorctl plugins scripts/docs systemd".split()
OF_PLUGIN = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "orchestratord-{name}"
version = "2.0.0"
dependencies = ["orchestratord>=1,<2"]

[project.entry-points.orchestratord]
{name} = "orchestratord_{name}"

[tool.hatch.build.targets.wheel]
packages = ["orchestratord_{name}"]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the product alone, and the plugins' wheels beside it."""
    folder = tmp_path_factory.mktemp("apart")
    product = folder / "product"
    left = shutil.ignore_patterns("__pycache__", "images")
    for name in OF_PRODUCT:
        shutil.copytree(ROOT / name, product / name, ignore=left)
    for name in ("README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, product)
    modules = [f"orchestratord_{name}" for name in TESTS]
    lines = (ROOT / "pyproject.toml").read_text().splitlines(keepends=True)
    without = (line for line in lines if not any(module in line for module in modules))
    (product / "pyproject.toml").write_text("".join(without))
    for name in TESTS:
        (folder / name).mkdir()
        shutil.move(product / "plugins" / f"orchestratord_{name}", folder / name)
        (folder / name / "pyproject.toml").write_text(OF_PLUGIN.format(name=name))
    for source in (product, *(folder / name for name in TESTS)):
        subprocess.run([*PIP, "wheel", *OFFLINE, "-w", folder, source], check=True, timeout=120)
    venv.create(folder / "venv", with_pip=False)
    (site,) = folder.glob("venv/lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install(folder, "orchestratord-1*.whl")
    # Its tests alone, where no checkout is found instead of what was installed.
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=left)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in ("config", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=left)
    (folder / "empty/apis").mkdir(parents=True)
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
        timeout=500,
    )


@pytest.mark.parametrize("name", TESTS)
def test_a_shipped_plugin_is_a_wheel_of_its_own(place: Path, name: str) -> None:
    config, module = ("--config", str(place / "empty")), f"orchestratord_{name}"
    without = run(place, "orchestratord", *COMMAND[name], *config)
    # Other plugins may share the group `import`.
    missing = re.search(rf"No such command '({'|'.join(COMMAND[name][:2])})'", without.stderr)
    assert without.returncode == 2, without.stderr
    assert missing, without.stderr
    row = rf"^{name} +2\.0\.0 +loaded +entry point"
    assert not re.search(
        rf"^{name} ", run(place, "orchestratord", "plugins", *config).stdout, re.MULTILINE
    )
    install(place, f"orchestratord_{name}-*.whl")
    assert re.search(row, run(place, "orchestratord", "plugins", *config).stdout, re.MULTILINE)
    where = run(place, "python", "-c", f"import {module}, orchestratord; print({module}.__file__)")
    assert str(place / "venv") in where.stdout
    tested = run(place, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS[name])
    assert tested.returncode == 0, tested.stdout + tested.stderr
    [passed] = re.findall(r"^(\d+) passed", tested.stdout, re.MULTILINE)
    assert int(passed) >= 10
