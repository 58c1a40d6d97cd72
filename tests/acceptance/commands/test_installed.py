"""From the wheel to a daemon that runs: what somebody does who has just installed it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
OFFLINE = ["--no-index", "--no-deps", "--no-build-isolation"]

Run = Callable[..., str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel in it, and what that depends on beside it."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([*PIP, "wheel", *OFFLINE, "-w", folder, ROOT], check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    place = folder / "venv"
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    (site,) = place.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run(
        [*PIP, "--python", python, "install", "--no-index", "--no-deps", wheel],
        check=True,
        timeout=120,
    )
    return place


def test_the_python_client_is_a_wheel_of_its_own(installed: Path, tmp_path: Path, run: Run) -> None:
    source = ROOT / "clients" / "python"
    subprocess.run([*PIP, "wheel", *OFFLINE, "-w", tmp_path, source], check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith("orchestratord_client-")
    with zipfile.ZipFile(wheel) as found:
        folders = {name.split("/")[0] for name in found.namelist()}
        assert "orchestratord_client/py.typed" in found.namelist()
        (metadata,) = [name for name in found.namelist() if name.endswith("/METADATA")]
        wanted = re.findall(r"^Requires-Dist: (\S+)", found.read(metadata).decode(), re.MULTILINE)
    assert {name.partition("-")[0] for name in folders} == {"orchestratord_client"}
    assert [re.split(r"[<>=]", name)[0] for name in wanted] == ["httpx"]
    assert not list(installed.glob("lib/python*/site-packages/orchestratord_client*"))
    with zipfile.ZipFile(wheel) as found:
        found.extractall(tmp_path / "lib")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'lib')!r}); import orchestratord_client"
    run("python", "-I", "-c", f"{code}; assert 'orchestratord' not in sys.modules")


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("h")


@pytest.fixture
def environ(installed: Path, home: Path) -> dict[str, str]:
    return {
        "PATH": f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
    }


@pytest.fixture
def run(installed: Path, home: Path, environ: dict[str, str]) -> Run:
    """Run a program of that environment; what it wrote to stdout."""

    def call(*command: str, cwd: Path = home) -> str:
        done = subprocess.run(
            [installed / "bin" / command[0], *command[1:]],
            cwd=cwd,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.fixture
def daemon(installed: Path, home: Path, environ: dict[str, str], run: Run) -> Iterator[Path]:
    """A daemon on the folder that `init` made, which is what is given."""
    said = run("orchestratord", "init", "conf")
    settings = home / "conf" / "orchestratord.yaml"
    # A port of its own, as others may run beside it.
    settings.write_text(settings.read_text().replace("127.0.0.1:8420", "127.0.0.1:0"))
    token = re.search(r"token: (\S+)", said)
    assert token is not None
    assert (home / "conf" / ".dashboard-token").read_text() == f"{token[1]}\n"
    process = subprocess.Popen(
        [installed / "bin" / "orchestratord", "run", "--config", "conf"],
        cwd=home,
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until((home / "orchestratord" / "control.sock").exists, "the control socket")
        yield home / "conf"
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0, log
        assert "ERROR" not in log
    finally:
        process.kill()
        process.wait()


def test_what_init_makes_runs(daemon: Path, run: Run) -> None:
    assert run("orchestratord", "check", "--config", str(daemon)).endswith("1 API, 1 endpoint\n")
    assert "example/getPage" in run("orchestratorctl", "endpoints")
    assert "a daemon answers" in run("orchestratord", "doctor", "--config", str(daemon))
    assert run("orchestratorctl", "__complete", "bash", "call", "ex") == "example/getPage\n"


def test_the_dashboard_is_there_with_all_its_files(daemon: Path, home: Path) -> None:
    transport = httpx.HTTPTransport(uds=str(home / "orchestratord" / "control.sock"), verify=False)
    with httpx.Client(transport=transport, base_url="http://localhost") as client:
        found: set[str] = set()
        for path in ("/", "/retries", "/endpoints/example/getPage", "/actions"):
            page = client.get(path)
            assert page.status_code == 200, page.text
            found |= set(re.findall(r'"(/assets/[^"]+)"', page.text))
        assert len(found) >= 4
        assert {client.get(address).status_code for address in found} == {200}


def test_a_running_daemon_takes_a_new_endpoint(daemon: Path, run: Run) -> None:
    run("orchestratord", "new", "endpoint", "shop/getOrder", "--config", str(daemon))
    until(lambda: "shop/getOrder" in run("orchestratorctl", "endpoints"), "the new endpoint")
    assert "config refused" not in run("orchestratorctl", "status")


def test_a_new_plugin_passes_its_test_once_it_is_installed(
    installed: Path, home: Path, run: Run
) -> None:
    run("orchestratord", "new", "plugin", "first-one")
    package = home / "orchestratord-first-one"
    subprocess.run(
        [*PIP, "--python", installed / "bin" / "python", "install", *OFFLINE, "-e", package],
        check=True,
        timeout=120,
    )
    assert "3 passed" in run("python", "-m", "pytest", "-q", cwd=package)
    assert re.search(r"\nfirst-one +0\.1\.0", run("orchestratord", "plugins"))


@pytest.mark.parametrize("page", ["orchestratord", "orchestratorctl", "orchestratord.yaml"])
def test_man_finds_the_pages(installed: Path, environ: dict[str, str], page: str) -> None:
    program = shutil.which("man")
    if program is None:
        pytest.skip("man is not installed")
    done = subprocess.run([program, "-w", page], env=environ, capture_output=True, text=True)
    (path,) = (installed / "share" / "man").glob(f"man*/{page}.[15]")
    assert done.stdout.strip() == str(path)


def test_the_units_name_the_environment_and_please_systemd(
    installed: Path, home: Path, environ: dict[str, str], run: Run
) -> None:
    root = home / "root"
    run("orchestratord", "systemd", "install", "--root", str(root))
    run("orchestratord", "systemd", "install", "--user", "--root", str(root))
    units = [
        root / "etc/systemd/system" / f"orchestratord.{kind}" for kind in ("service", "socket")
    ]
    of_user = root / "etc/systemd/user/orchestratord.service"
    program = installed / "bin" / "orchestratord"
    for unit in (units[0], of_user):
        assert f"\nExecStart={program} run\n" in unit.read_text()
    assert "is up to date" in run("orchestratord", "systemd", "install", "--root", str(root))
    assert run("orchestratord", "systemd", "print") == units[0].read_text()
    told = run("orchestratord", "systemd", "print", "--config", "/srv/100% ours")
    assert f'\nExecStart={program} run --config "/srv/100%% ours"\n' in told
    judge = shutil.which("systemd-analyze")
    if judge is None:
        pytest.skip("systemd-analyze is not installed")
    for mode, judged in (("--system", units), ("--user", [of_user])):
        command = [judge, "verify", mode, "--man=no", "--recursive-errors=no", *judged]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ)
        assert str(root) not in done.stderr + done.stdout
        assert done.returncode == 0, done.stderr


def test_a_unit_that_was_changed_is_left_alone(home: Path, installed: Path, run: Run) -> None:
    root = home / "root"
    run("orchestratord", "systemd", "install", "--root", str(root))
    unit = root / "etc/systemd/system/orchestratord.service"
    unit.write_text(f"{unit.read_text()}Nice=5\n")
    program = installed / "bin" / "orchestratord"
    command = [program, "systemd", "install", "--root", root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "systemctl edit orchestratord" in done.stderr
    assert "Nice=5" in unit.read_text()
    run("orchestratord", "systemd", "install", "--force", "--root", str(root))
    assert "Nice=5" not in unit.read_text()
