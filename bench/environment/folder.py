"""Where the peers are installed: a folder of the benchmark's own, outside of the checkout.

Only the ordinary clients are used: pip, npm, and apt-get for what Debian packages.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.environment.servers import Missing, find, postgres_program

PYPI = ("dramatiq[redis]>=2.2,<3", "huey>=3.5,<4", "redis[hiredis]>=6", "requests>=2.32,<3",
        "urllib3>=2.6,<3")  # fmt: skip
NPM = {
    "bullmq": "^6.7.0",
    "ioredis": "^5.11.0",
    # 0.18 wants a newer Node.js than Debian's.
    "graphile-worker": "~0.17.3",
    "pg": "^8.23.0",
    "undici": "^7.30.0",
}
DEBIAN = {
    "nginx": ("nginx", "/usr/sbin"),
    "redis-server": ("redis-server", "/usr/bin"),
    "psql": ("postgresql", "/usr/bin"),
    "node": ("nodejs", "/usr/bin"),
    "npm": ("npm", "/usr/bin"),
}
"""Program → Debian's package, and the folder where it is found."""
PROGRAMS = Path(__file__).parents[1] / "peers" / "programs"


class Folder:
    """Where the peers are, once `install` has been called.

    Args:
        path: made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # One for each Python that runs the benchmark: the peers run on the same one.
        self._python = "python-{}.{}.{}".format(*sys.version_info)
        self._venv = path / self._python
        self.bin = self._venv / "bin"
        self.node = path / "node"
        """Node.js looks for packages beside a program, and so the programs are copied here."""

    def install(self) -> None:
        """Install what is missing, or not as it should be.

        Raises Missing where Debian's packages are and we are not root.
        """
        install_debian(DEBIAN)
        postgres_program("postgres")
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.bin / "pip").exists():
            _run([sys.executable, "-m", "venv", self._venv])
        if self._changed(self._python, PYPI):
            _run([self.bin / "pip", "install", "--quiet", "--upgrade", *PYPI])
            self._remember(self._python, PYPI)
        self.node.mkdir(exist_ok=True)
        if self._changed("npm", NPM):
            package = {"private": True, "type": "module", "dependencies": NPM}
            (self.node / "package.json").write_text(json.dumps(package, indent=2))
            _run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=self.node)
            self._remember("npm", NPM)
        for program in PROGRAMS.glob("*.mjs"):
            shutil.copy(program, self.node)

    def python_versions(self) -> dict[str, str]:
        """The packages of the virtual environment, with their versions."""
        listed = json.loads(_run([self.bin / "pip", "list", "--format", "json"]))
        return {item["name"]: item["version"] for item in listed}

    def node_versions(self) -> dict[str, str]:
        """The npm packages that were asked for, with their versions."""
        return {
            name: json.loads((self.node / "node_modules" / name / "package.json").read_text())[
                "version"
            ]
            for name in NPM
        }

    def _changed(self, what: str, wanted: object) -> bool:
        note = self.path / f"{what}.installed"
        return not note.exists() or note.read_text() != json.dumps(wanted)

    def _remember(self, what: str, wanted: object) -> None:
        (self.path / f"{what}.installed").write_text(json.dumps(wanted))


def install_debian(programs: Mapping[str, tuple[str, str]]) -> None:
    """Install the packages of the programs that are missing. Raises Missing if we are not root."""
    packages = []
    for program, (package, folder) in programs.items():
        try:
            find(program, package, folder)
        except Missing:
            packages.append(package)
    if not packages:
        return
    words = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"some programs are missing; as root: apt-get install {words}")
    _run(["apt-get", "update", "-qq"])
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], env=quiet)


def _run(
    command: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    ran = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)  # noqa: S603
    if ran.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    return ran.stdout
