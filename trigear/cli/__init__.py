"""The command line. Nothing is imported here: each command loads what it needs when it is called,
so that `trigear --version` answers at once."""

from __future__ import annotations


def main() -> int:
    """The program `trigear`; with the name `gearmand` it is that program.

    Returns:
        The exit status.
    """
    import os
    import sys

    if sys.argv and os.path.basename(sys.argv[0]) == "gearmand":
        return gearmand_main()
    from trigear.cli.root import run_trigear

    return run_trigear(sys.argv[1:])


def gearmand_main() -> int:
    """The program `gearmand`: the server with gearmand's options and defaults.

    Returns:
        The exit status.
    """
    import sys

    from trigear.cli.root import run_gearmand

    return run_gearmand(sys.argv[1:])
