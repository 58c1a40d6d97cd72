"""As PID 1, as in a container: reap what others leave behind."""

from __future__ import annotations

import os
import signal


def reap_orphans() -> None:
    """Where this is PID 1, go on in a child of it, and stay to reap orphans, to hand signals on and
    to end as the child does.

    Not in one process: what waits for a child of its own, as `subprocess` does, would find another
    one's reaper faster.
    """
    if os.getpid() != 1:
        return
    signals = signal.valid_signals()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    if (daemon := os.fork()) == 0:
        os.setsid()  # or a terminal's Ctrl-C would come twice, which aborts
        for name in {"LISTEN_PID", "WATCHDOG_PID"} & os.environ.keys():
            os.environ[name] = str(os.getpid())
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while True:
        if (number := signal.sigwait(signals)) != signal.SIGCHLD:
            os.kill(daemon, number)
            continue
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == daemon:
                code = os.waitstatus_to_exitcode(found[1])
                os._exit(code if code >= 0 else 128 - code)
