"""`python -m orchestratorctl`."""

from __future__ import annotations

import sys

from orchestratorctl.main import main

sys.exit(main())
