"""Every format of the plans of sample.py, word for word. `python tests/render/test_golden.py` writes the files anew."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from sample import PLANS

from advisor.render import render

GOLDEN = Path(__file__).parent / "golden"
CASES = {
    f"{name}{'-explained' if explain else ''}.{suffix}": (name, format, explain)
    for name, (format, suffix), explain in product(
        PLANS, (("table", "txt"), ("markdown", "md"), ("json", "json")), (False, True)
    )
    if not (format == "json" and explain)
}


@pytest.mark.parametrize("file", CASES)
def test_a_plan_is_shown_word_for_word_as_it_was(file: str) -> None:
    """A change of what users read is seen in the files beside this one."""
    name, format, explain = CASES[file]
    assert render(PLANS[name], format, explain=explain) == (GOLDEN / file).read_text(encoding="utf-8")


def test_every_golden_file_is_looked_at() -> None:
    """No file is left behind by a case that is gone."""
    assert {path.name for path in GOLDEN.iterdir()} == set(CASES)


if __name__ == "__main__":
    for file, (name, format, explain) in CASES.items():
        (GOLDEN / file).write_text(render(PLANS[name], format, explain=explain), encoding="utf-8")
