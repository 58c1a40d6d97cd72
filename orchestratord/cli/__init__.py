"""The command `orchestratord`.

A command NAME is in NAME_command.py, of those that only look in inspect/. Each is handed the folder
that `--config` names, and opened_config reads it. Other commands are plugins'.
"""

import signal
import sys

if sys.argv[1:2] == ["run"]:
    # A reload that is asked for while all else is imported waits until the daemon can reload.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
