"""Another host, as a network namespace, and the cables to it, which a test can cut."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from types import TracebackType

import pytest

NETWORK = "198.18.0.0/15"
"""Nobody is found there: the range is for the tests of networks."""

_numbers = itertools.count()


class Host:
    """A host with several cables to this one, each a network of its own. A context manager.

    Each cable ends at a switch there. One that is cut is pulled out of it: what is sent gets lost,
    and nobody is told.
    """

    def __init__(self, cables: int) -> None:
        number = next(_numbers)
        self._name = f"queue-{os.getpid()}-{number}"
        self._links = [f"q{os.getpid()}.{number}.{n}"[-15:] for n in range(cables)]
        self._net = f"198.18.{(os.getpid() + number) % 250}"

    def address(self, cable: int) -> str:
        """What it is called from here, by this cable."""
        return f"{self._net}.{4 * cable + 2}"

    def within(self, user: str) -> list[str]:
        """The beginning of a command line that is to run there, as a user."""
        words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return ["ip", "netns", "exec", self._name, *words]

    def cut(self, cable: int) -> None:
        """Nothing comes through from now on."""
        _ip("-n", self._name, "link", "set", f"eth{cable}", "nomaster")

    def mend(self, cable: int) -> None:
        """It carries again."""
        _ip("-n", self._name, "link", "set", f"eth{cable}", "master", f"switch{cable}")

    def __enter__(self) -> Host:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("network namespaces take root and iproute2")
        try:
            _ip("netns", "add", self._name)
            _ip("-n", self._name, "link", "set", "lo", "up")
            for n, link in enumerate(self._links):
                _ip("link", "add", link, "type", "veth", "peer", f"eth{n}", "netns", self._name)
                _ip("addr", "add", f"{self._net}.{4 * n + 1}/30", "dev", link)
                _ip("-n", self._name, "link", "add", f"switch{n}", "type", "bridge")
                _ip("-n", self._name, "addr", "add", f"{self.address(n)}/30", "dev", f"switch{n}")
                self.mend(n)
                for name in (f"eth{n}", f"switch{n}"):
                    _ip("-n", self._name, "link", "set", name, "up")
                _ip("link", "set", link, "up")
        except subprocess.CalledProcessError as error:
            self.__exit__(None, None, None)
            pytest.skip(f"no network namespace can be made here: {error.stderr.strip()}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self._name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
