"""How often the search for other ways finds the cheapest that there is, on jobs and sets of rules drawn at random.

    PYTHONPATH=.:tests/planning python benchmarks/plans/exactness.py [JOBS] [RULES] [FIRST SEED]

Held against every combination of as many of the rules; jobs with more than 40,000 combinations are left out.
"""

from __future__ import annotations

import sys
from collections import Counter

import oracle
from random_jobs import late_job

MOST = 40_000


def compared(seed: int, rules: int) -> Counter[str]:
    """What the four searches of one job came to."""
    w = late_job(seed, limited_host=False)
    drawn = oracle.some_rules(w, seed, rules)
    ends = oracle.combinations(w, drawn, MOST)
    if ends is None:
        return Counter(["left out"])
    there, found = oracle.by_all(ends, w), oracle.by_search(w, drawn)
    return Counter(["jobs", *(_verdict(there[name], found[name]) for name in there)])


def _verdict(there: object, found: object) -> str:
    if there == found:
        return "the cheapest found" if found else "rightly none found"
    return "a dearer one found" if found and there else "none found where there is one" if there else "not allowed"


def main(jobs: int, rules: int, first: int) -> None:
    counts: Counter[str] = Counter()
    seed = first
    while counts["jobs"] < jobs:
        counts += compared(seed, rules)
        seed += 1
    for what, many in counts.most_common():
        print(f"{many:6} {what}")


if __name__ == "__main__":
    main(*(int(word) for word in [*sys.argv[1:], *("200", "10", "1000")[len(sys.argv) - 1 :]]))
