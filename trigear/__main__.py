"""`python -m trigear`."""

from __future__ import annotations

import sys

from trigear.cli import main

sys.exit(main())
