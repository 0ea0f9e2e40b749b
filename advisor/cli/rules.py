"""`advise rules`: the rules, or one of them in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.cli.options import listing_command
from advisor.cli.output import Answer, width

if TYPE_CHECKING:
    from advisor.planning.rulebook import Rule


def rules(words: tuple[str, ...], format: str | None, output: str | None) -> Answer:
    """List the rules in the order in which a plan tries them, or show the page of one: advise rules T1.

    An id, a name, or words that the name or the title has.
    """
    from advisor.render.listing import Listing, render
    from advisor.render.rule_page import record
    from advisor.render.rule_page import render as render_page

    found = _find(" ".join(words))
    format, columns = format or "table", width(output)
    if len(found) == 1 and format != "json":
        return Answer(render_page(found[0], format, columns), output=output)
    rows = [[rule.id, rule.name, rule.title] for rule in found]
    listing = Listing(["id", "rule", "does"], rows, (), [record(rule) for rule in found] if format == "json" else [])
    return Answer(render(listing, format, columns), output=output)


def _find(text: str) -> list[Rule]:
    from advisor.errors import RequestError
    from advisor.planning import rule_files, rulebook

    rule_files.check()
    if not text:
        return list(rulebook.rules())
    try:
        return [rulebook.find_rule(text)]
    except RequestError:
        wanted = text.lower().split()
        found = [rule for rule in rulebook.rules() if all(word in f"{rule.name} {rule.title}".lower() for word in wanted)]
        if not found:
            raise
        return found


command = listing_command("rules", rules, "ID", "The rules, or one in full.")
