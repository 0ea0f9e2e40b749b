"""The command line: the only place that prints or exits."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """`advise`. Loads nothing before it can be interrupted quietly."""
    # A short life needs no collector: its passes while modules load and once more at the end are a seventh of the whole run.
    gc.disable()
    try:
        from advisor.cli.run import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    finally:
        gc.freeze()
        gc.enable()
    sys.exit(code)
