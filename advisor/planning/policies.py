"""The order in which a plan tries the rules: the rulebook's own, one that comes with it, or a file of the user's.

A policy is a TOML file with one key, ``rules``: ids or names of rules, the first to be tried first. A rule that it does not
name is never applied. It may name the rules of both questions; those of the other are passed over.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from advisor.data import data_folder
from advisor.errors import RequestError
from advisor.planning.rulebook import Question, Rulebook, find_rule, load

DOCUMENTED = "documented"  # the order of the rulebook: the memory guide's, and what goes beyond it after that
FOLDER = "policies"


@cache
def ordered(question: Question, policy: str) -> Rulebook:
    """The rules of one question as a policy orders them. Raises RequestError for a policy that is none."""
    book = load(question)
    if policy == DOCUMENTED:
        return book
    named = _named(policy)
    try:
        ids = [rule.id for rule in map(find_rule, named)]
    except RequestError as problem:
        raise RequestError(f"policy {policy}: {problem}") from None
    by_id = {rule.id: rule for rule in book.rule}
    chosen = [by_id[each] for each in ids if each in by_id]
    if twice := next((each for each in ids if ids.count(each) > 1), None):
        raise RequestError(f"policy {policy}: {twice} stands there twice")
    if not chosen:
        raise RequestError(f"policy {policy}: it names no rule for {question}")
    return Rulebook(chosen)


def names() -> list[str]:
    """The policies that come with the rules."""
    return sorted({DOCUMENTED, *(path.stem for path in (data_folder("rules") / FOLDER).glob("*.toml"))})


def _named(policy: str) -> list[str]:
    """The rules of a policy, as it names them."""
    path = data_folder("rules") / FOLDER / f"{policy}.toml" if policy in names() else Path(policy).expanduser()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(
            f'policy: there is no {policy}; take {", ".join(names())}, or a TOML file with rules = ["T1", ...]'
        ) from None
    except (OSError, UnicodeDecodeError, ValueError) as problem:  # a TOMLDecodeError is a ValueError
        reason = getattr(problem, "strerror", None) or str(problem)
        raise RequestError(f"policy {policy}: {reason}") from None
    rules = found.get("rules")
    if found.keys() != {"rules"} or not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise RequestError(f'policy {policy}: it has one key, rules, with a list of rule ids such as ["T1", "T2"]')
    return rules
