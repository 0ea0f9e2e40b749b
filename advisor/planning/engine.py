"""Which rule comes next: the seam to durable_rules, and the plain loop that says the same without it.

No other module imports durable_rules. Its version 2.0.28 decides one thing here, and decides it in
C over a Rete network: which rule an event sets off. What the rule does happens outside of it, in
plain Python, because an action that fails, is interrupted or takes more than ten seconds is
swallowed there without a word.

>>> rules = {"small": [Condition("x", "below", 10)], "end": [Condition("x", "at_least", 10)]}
>>> PlainLoop("demo", rules).run({"x": 8}, lambda rule, fact: {"x": fact["x"] + 1} if rule == "small" else None)
['small', 'small', 'end']
"""

import itertools
import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

MOST_RULES = 63  # an event may match 64 (MAX_STACK_SIZE in durable_rules' events.c), and one is for where no rule holds
RESERVED = {"id", "sid", "event"}  # durable_rules takes two events of one id for the same
MOST_FIRINGS = 1000  # an endless rule is stopped by nothing in durable_rules

Value = bool | int | float | str
Facts = Mapping[str, Value]
Apply = Callable[[str, Facts], Facts | None]


class RulesError(RuntimeError):
    """The rules are wrong: none for a situation, too many, or a walk without end."""


class Other(NamedTuple):
    """The value of another fact of the same situation."""

    fact: str


class Condition(NamedTuple):
    """``fact operator value``: batch above 1, gpus below the fact max_gpus."""

    fact: str
    operator: str
    value: Value | Other


Rules = Mapping[str, Sequence[Condition]]


class Operator(NamedTuple):
    durable: str | None  # None: the bare {fact: value} of equality
    holds: Callable[[Any, Any], bool]


OPERATORS = {
    "is": Operator(None, operator.eq),
    "not": Operator("$neq", operator.ne),
    "at_least": Operator("$gte", operator.ge),
    "at_most": Operator("$lte", operator.le),
    "above": Operator("$gt", operator.gt),
    "below": Operator("$lt", operator.lt),
}


def holds(condition: Condition, facts: Facts) -> bool:
    """Whether the condition is true of the facts."""
    value = facts[condition.value.fact] if isinstance(condition.value, Other) else condition.value
    return OPERATORS[condition.operator].holds(facts[condition.fact], value)


class Engine(Protocol):
    """Fires rules one at a time until one of them ends the walk."""

    def run(self, first: Facts, apply: Apply) -> list[str]:
        """The rules that fired, in order: each is the first one true of the facts that ``apply`` gave last."""


class PlainLoop:
    """The rules asked one after the other."""

    def __init__(self, name: str, rules: Rules) -> None:
        self._name, self._rules, self._named = name, rules, _check(name, rules)

    def run(self, first: Facts, apply: Apply) -> list[str]:
        return _walk(self._name, self._named, first, apply, self._fire)

    def _fire(self, facts: Facts) -> str | None:
        return next((rule for rule, when in self._rules.items() if all(holds(one, facts) for one in when)), None)


class Durable:
    """The rules as one durable_rules ruleset. Make it once a process: the library never frees one."""

    def __init__(self, name: str, rules: Rules) -> None:
        self._name, self._named = name, _check(name, rules)
        # Its part in C alone: the one in Python around it runs actions, of which there are none here, and takes 13 ms to load.
        import durable_rules_engine

        self._c = durable_rules_engine
        self._sessions = itertools.count(1)
        # Deleting the session of an event that no rule matched is a segmentation fault, so one always does.
        clauses = [*map(_clause, rules.values()), {"event": 1}]  # `$ex` of sid would never return
        self._rules = [*rules, None]
        # Rules go by their place, which a JSON text shows without being read.
        definition = {str(place): {"all": [{"m": clause}], "pri": place + 1} for place, clause in enumerate(clauses)}
        self._handle = self._c.create_ruleset(name, _json(definition))

    def run(self, first: Facts, apply: Apply) -> list[str]:
        return _walk(self._name, self._named, first, apply, self._fire)

    def _fire(self, facts: Facts) -> str | None:
        # A session of its own for every event: threads and nested walks do not meet, and equal events are not taken for one.
        session = str(next(self._sessions))
        error, state = self._c.assert_event(self._handle, _json({**facts, "event": 1, "sid": session}))
        if error:
            raise RulesError(f"{self._name}: durable_rules does not take the facts, with error {error}")
        try:
            due = self._c.start_action_for_state(self._handle, state)
        finally:
            self._c.delete_state(self._handle, session)  # 1,024 live at most, 227 KiB each
        if due is None:
            raise RulesError(f"{self._name}: durable_rules chose no rule")
        return self._rules[int(due[1].split('"', 2)[1])]  # {"3":{"m":{the event}}}


def installed() -> bool:
    """Whether durable_rules is there and loads: it has no wheels, and from Python 3.13 on it needs a build flag."""
    try:
        import durable_rules_engine  # noqa: F401
    except ImportError:  # absent, or built without the flag: an undefined symbol
        return False
    return True


def build(name: str, rules: Rules) -> Engine:
    """The rules on durable_rules where it is installed, else on the plain loop; the answers are the same."""
    return Durable(name, rules) if installed() else PlainLoop(name, rules)


def engine_name() -> str:
    """What decides here: ``durable_rules 2.0.28`` or ``plain loop``."""
    if not installed():
        return "plain loop"
    from importlib.metadata import version

    return f"durable_rules {version('durable-rules')}"


def _check(name: str, rules: Rules) -> frozenset[str]:
    """The facts that the rules name. Refuses what durable_rules takes without a word, hangs on, or answers with a bare number."""
    if not 1 <= len(rules) <= MOST_RULES:
        raise RulesError(f"{name}: {len(rules)} rules; from 1 to {MOST_RULES} can be told apart")
    for rule, when in rules.items():
        if not when:
            raise RulesError(f"{name}: rule {rule} has no condition")
        for condition in when:
            if condition.operator not in OPERATORS:
                raise RulesError(
                    f"{name}: rule {rule} has no operator {condition.operator!r}; there are {', '.join(OPERATORS)}"
                )
            if not isinstance(condition.value, Other):
                _check_value(f"{name}: rule {rule}", condition.fact, condition.value)
    conditions = [condition for when in rules.values() for condition in when]
    return frozenset(one.fact for one in conditions) | {one.value.fact for one in conditions if isinstance(one.value, Other)}


def _check_value(where: str, fact: str, value: object) -> None:
    """Its JSON reader takes no exponent without a point (1e-05, 1e+16) and no infinity, and reads NaN as null."""
    if isinstance(value, str):
        return
    if isinstance(value, int):  # a truth is one
        if abs(value) >= 2**63:
            raise RulesError(f"{where}: {fact} is {value!r}, a number beyond 64 bits")
    elif not isinstance(value, float):
        raise RulesError(f"{where}: {fact} is {value!r}, which is no number, text or truth")
    elif not math.isfinite(value) or ("e" in repr(value) and "." not in repr(value)):
        raise RulesError(f"{where}: {fact} is {value!r}, a number that the rules engine cannot read")


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _clause(when: Sequence[Condition]) -> dict[str, Any]:
    """The conditions as durable_rules writes them; of a clause with two keys it would read one."""
    return {"$and": [_term(condition) for condition in when]}


def _term(condition: Condition) -> dict[str, Any]:
    value = {"$m": condition.value.fact} if isinstance(condition.value, Other) else condition.value
    term = {condition.fact: value}
    symbol = OPERATORS[condition.operator].durable
    return term if symbol is None else {symbol: term}


def _walk(name: str, named: frozenset[str], first: Facts, apply: Apply, fire: Callable[[Facts], str | None]) -> list[str]:
    fired: list[str] = []
    facts: Facts | None = first
    while facts is not None:
        if len(fired) == MOST_FIRINGS:
            raise RulesError(f"{name}: no end after {MOST_FIRINGS} firings, the last of {fired[-1]}")
        if lacking := named.difference(facts):  # in durable_rules every comparison with a missing fact is false
            raise RulesError(f"{name}: the rules ask for {', '.join(sorted(lacking))}, which the facts do not tell")
        if taken := [fact for fact in RESERVED if fact in facts]:
            raise RulesError(f"{name}: {', '.join(sorted(taken))} cannot be the name of a fact")
        asked = {fact: facts[fact] for fact in named}
        for fact, value in asked.items():
            _check_value(name, fact, value)
        rule = fire(asked)
        if rule is None:
            raise RulesError(f"{name}: no rule for {dict(facts)}")
        fired.append(rule)
        facts = apply(rule, facts)
    return fired
