"""The command line: the only place that prints or exits."""

from __future__ import annotations

import sys


def main() -> None:
    """`advise`. Loads nothing before it can be interrupted quietly."""
    try:
        from advisor.cli.run import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
