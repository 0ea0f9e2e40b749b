"""How long the command takes from start to end, beside a process that only imports what it is built on.

    python benchmarks/startup.py [PAIRS]

Prints, for some commands, the median over interleaved pairs of whole processes on a warm file cache, and the ratio of
the two medians. The command is to take at most 1.5 times as long as the packages that the owner gave take to import, of which
it loads only what it needs. Bytecode may be written, as an installed package has it. No test looks at a clock.
"""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median
from time import perf_counter

IMPORTS = [sys.executable, "-c", "import click, pydantic, tabulate, durable.engine; pydantic.BaseModel"]
COMMANDS = {
    "help": ["--help"],
    "version": ["--version"],
    "a job that fits": ["--gpu", "v100-16", "--infer", "7b", "--quantization", "int8"],
    "a job with a plan": ["--gpu", "v100-16", "--train", "7b"],
    "the same as JSON": ["--gpu", "v100-16", "--train", "7b", "--format", "json"],
}
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(command: list[str]) -> float:
    """One whole process."""
    start = perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT, check=False)
    return perf_counter() - start


def main(pairs: int) -> None:
    print(f"{pairs} pairs, Python {sys.version.split()[0]}")
    for name, words in COMMANDS.items():
        command = [sys.executable, "-m", "advisor", *words]
        seconds(command), seconds(IMPORTS)  # warm
        taken = [(seconds(command), seconds(IMPORTS)) for _ in range(pairs)]
        own, imports = (1000 * median(column) for column in zip(*taken, strict=True))
        print(f"{name:18} {own:6.0f} ms, imports alone {imports:4.0f} ms: {own / imports:.2f} times")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)
