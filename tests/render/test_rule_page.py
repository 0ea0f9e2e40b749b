"""The page of a rule."""

from __future__ import annotations

import pytest

from advisor.planning.rulebook import rules
from advisor.render.rule_page import record, render

HEADINGS = ["What it does", "When it applies", "Why it helps", "What it costs", "How to apply it", "Sources"]
RULES = {rule.id: rule for rule in rules()}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_its_page_under_the_same_headings(name: str) -> None:
    """Plain and Markdown, each heading once and in order, each with text below."""
    rule = RULES[name]
    lines = render(rule, "table", 80).splitlines()
    assert lines[0] == f"{rule.id} {rule.name}: {rule.title}"
    assert [line for line in lines[1:] if line and not line.startswith(" ")] == HEADINGS
    assert all(lines[lines.index(heading) + 1].strip() for heading in HEADINGS)
    assert [line[4:] for line in render(rule, "markdown", 80).splitlines() if line.startswith("### ")] == HEADINGS


@pytest.mark.parametrize("name", RULES)
def test_a_page_leaves_no_brace_that_a_plan_would_fill(name: str) -> None:
    """{batch} is shown as BATCH."""
    assert "{batch}" not in render(RULES[name], "table", 80)
    assert "{model}" not in render(RULES[name], "table", 80)


@pytest.mark.parametrize("name", RULES)
def test_a_page_keeps_to_the_width_and_code_is_left_alone(name: str) -> None:
    """A broken line of code would be another program; a comment goes on in a comment."""
    rule = RULES[name]
    page = render(rule, "table", 80)
    assert all(len(line) <= 80 for line in page.splitlines())
    for text in rule.how.values():
        for snippet in [text] if isinstance(text, str) else text.values():
            first = snippet.strip().splitlines()[0]
            assert "{" in first or first.startswith("#") or first in page


def test_a_page_tells_the_time_of_every_case() -> None:
    """Tensor parallel is faster, layers dealt out are not."""
    page = render(RULES["I4"], "table", 80)
    assert "- Time, tp: up to 45 % faster." in page
    assert "- Time, gpus: no slower." in page
    assert "- Time: 20-33 % slower." in render(RULES["T1"], "table", 80)


def test_a_record_tells_its_conditions() -> None:
    """A condition on another fact is an object."""
    [clause] = record(RULES["I1"])["when"]
    assert clause == {
        "fact": "batch",
        "operator": "above",
        "value": {"fact": "min_batch"},
        "otherwise": "the batch is down to {min_batch} already",
    }
