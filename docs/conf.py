"""Sphinx configuration. Nothing here reaches out to the network."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import trigear

project = "trigear"
author = "The trigear authors"
copyright = "The trigear authors"
version = release = trigear.__version__

extensions = ["myst_parser", "trigear_commands", "trigear_tables"]
exclude_patterns = ["_build", "_ext"]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4

nitpicky = True
html_theme = "furo"
html_title = f"trigear {release}"
html_show_copyright = False
