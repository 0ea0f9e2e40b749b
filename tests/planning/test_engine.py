"""The engine: durable_rules and the plain loop say the same, and nothing that durable_rules swallows is lost."""

from __future__ import annotations

import itertools
import math
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from advisor.planning.engine import (
    MOST_FIRINGS,
    MOST_RULES,
    OPERATORS,
    Condition,
    Durable,
    Other,
    PlainLoop,
    RulesError,
    build,
    engine_name,
    installed,
)

with_durable = pytest.mark.skipif(not installed(), reason="durable_rules is not installed here")
KINDS = [PlainLoop, pytest.param(Durable, marks=with_durable)]
each_engine = pytest.mark.parametrize("kind", KINDS)

COUNTDOWN = {
    "end": [Condition("left", "at_most", 0)],
    "even": [Condition("half", "is", True)],
    "odd": [Condition("half", "is", False)],
}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def countdowns():
    """One engine of each kind over the same rules, made once as in the program."""
    return {
        kind: kind(f"countdown-{kind.__name__}", COUNTDOWN) for kind in (PlainLoop, Durable) if kind is PlainLoop or installed()
    }


def situation(left: int) -> dict:
    return {"left": left, "half": left % 2 == 0}


def count_down(rule: str, facts: dict) -> dict | None:
    return None if rule == "end" else situation(facts["left"] - 1)


def random_rules(dice: random.Random) -> dict:
    """One to twelve rules of one to four conditions each, and one that always holds."""
    numbers, words = ("a", "b", "c"), ("x", "y")

    def condition() -> Condition:
        if dice.random() < 0.7:
            value = Other(dice.choice(numbers)) if dice.random() < 0.3 else dice.randint(0, 4)
            return Condition(dice.choice(numbers), dice.choice(list(OPERATORS)), value)
        if dice.random() < 0.5:
            return Condition("flag", dice.choice(("is", "not")), dice.random() < 0.5)
        value = Other(dice.choice(words)) if dice.random() < 0.3 else dice.choice(("none", "full", "Größe", "1"))
        return Condition(dice.choice(words), dice.choice(("is", "not")), value)

    rules = {f"R{n}": [condition() for _ in range(dice.randint(1, 4))] for n in range(dice.randint(1, 12))}
    return {**rules, "last": [Condition("always", "is", True)]}


def random_facts(dice: random.Random) -> dict:
    words = ("none", "full", "Größe", "1")
    return {
        **{name: dice.randint(0, 4) for name in ("a", "b", "c")},
        **{name: dice.choice(words) for name in ("x", "y")},
        "flag": dice.random() < 0.5,
        "always": True,
    }


@with_durable
@pytest.mark.parametrize("seed", range(40))
def test_durable_rules_fires_what_the_plain_loop_fires(seed):
    """40 random rule sets, 25 walks each of 1 to 10 situations: the same rules in the same order."""
    dice = random.Random(seed)
    rules = random_rules(dice)
    durable, plain = Durable(f"random-{seed}", rules), PlainLoop("plain", rules)
    for _ in range(25):
        walk = [random_facts(dice) for _ in range(dice.randint(1, 10))]

        def fired(engine, walk=walk):
            rest = iter(walk[1:])
            return engine.run(walk[0], lambda rule, facts: next(rest, None))

        assert fired(durable) == fired(plain)


@with_durable
def test_every_operator_means_the_same_on_both_sides():
    """Each operator, against a constant and against another fact, for smaller, equal and larger values."""
    for number, (name, other) in enumerate(itertools.product(OPERATORS, (False, True))):
        rules = {"yes": [Condition("a", name, Other("b") if other else 2)], "no": [Condition("a", "at_least", 0)]}
        durable, plain = Durable(f"operator-{number}", rules), PlainLoop("plain", rules)
        for a in (1, 2, 3):
            facts = {"a": a, "b": 2}
            assert durable.run(facts, lambda *_: None) == plain.run(facts, lambda *_: None), (name, other, a)


@each_engine
def test_the_first_rule_that_holds_fires_and_only_that(kind):
    """File order is priority: of 60 rules that all hold, the first fires at every event."""
    rules = {f"R{n}": [Condition("left", "at_least", 0)] for n in range(60)}
    assert kind(f"first-{kind.__name__}", rules).run(
        {"left": 1}, lambda rule, facts: None if facts["left"] == 0 else {"left": 0}
    ) == ["R0", "R0"]


@each_engine
def test_all_conditions_of_a_rule_count(kind):
    """durable_rules reads one key of a clause that has two; here every condition is asked."""
    rules = {"both": [Condition("a", "is", 1), Condition("b", "is", 1)], "else": [Condition("a", "is", 1)]}
    assert kind(f"both-{kind.__name__}", rules).run({"a": 1, "b": 2}, lambda *_: None) == ["else"]


@each_engine
@pytest.mark.parametrize("problem", [ValueError("boom"), KeyboardInterrupt(), SystemExit(3), MemoryError()])
def test_an_exception_in_a_remedy_comes_out_as_it_is(countdowns, kind, problem):
    """Inside a durable_rules action all of these, Ctrl-C too, would become a text in the session."""

    def fail(rule, facts):
        if facts["left"] == 2:
            raise problem
        return count_down(rule, facts)

    with pytest.raises(type(problem)) as caught:
        countdowns[kind].run(situation(4), fail)
    assert caught.value is problem
    assert countdowns[kind].run(situation(2), count_down) == ["even", "odd", "end"]


@each_engine
@pytest.mark.parametrize("value", [1e-05, 1e16, 1e22, math.inf, -math.inf, math.nan, 2**63, -(2**63), None, [1], b"x"])
def test_facts_that_durable_rules_misreads_are_refused(kind, value):
    """1e-05 is error 204 there, NaN is null, 2**63 saturates; both engines say which fact it is."""
    rules = {"all": [Condition("x", "not", 7)]}
    with pytest.raises(RulesError, match="x is "):
        kind(f"values-{kind.__name__}", rules).run({"x": value}, lambda *_: None)


@each_engine
def test_the_largest_numbers_are_exact(kind):
    """64-bit integers are told apart to the last unit, in events and as constants are bytes of any card."""
    rules = {"equal": [Condition("x", "is", Other("y"))], "apart": [Condition("x", "below", Other("y"))]}
    engine = kind(f"large-{kind.__name__}", rules)
    assert engine.run({"x": 2**63 - 2, "y": 2**63 - 1}, lambda *_: None) == ["apart"]
    assert engine.run({"x": 2**63 - 1, "y": 2**63 - 1}, lambda *_: None) == ["equal"]


@each_engine
@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({}, "0 rules"),
        ({f"R{n}": [Condition("x", "is", 1)] for n in range(MOST_RULES + 1)}, f"{MOST_RULES + 1} rules"),
        ({"R": []}, "no condition"),
        ({"R": [Condition("x", "in", 1)]}, "no operator 'in'"),
        ({"R": [Condition("x", "above", 1e-05)]}, "cannot read"),
        ({"R": [Condition("x", "above", math.nan)]}, "cannot read"),
        ({"R": [Condition("x", "above", 2**63)]}, "beyond 64 bits"),
    ],
)
def test_rules_that_durable_rules_hangs_on_or_numbers_are_refused(kind, rules, words):
    """An empty clause hangs it, an unknown operator is 202, a 65th matching rule is 303, an empty ruleset never fires."""
    with pytest.raises(RulesError, match=words):
        kind("wrong", rules)


@each_engine
def test_63_rules_that_all_match_are_no_problem(kind):
    """The limit is 64 for one event, and one of them is the rule for no rule."""
    rules = {f"R{n}": [Condition("x", "at_least", 0)] for n in range(MOST_RULES)}
    assert kind(f"many-{kind.__name__}", rules).run({"x": 1}, lambda *_: None) == ["R0"]


@each_engine
def test_an_endless_rule_is_stopped(kind):
    """A thousand firings are more than any walk has; the message names the rule."""
    with pytest.raises(RulesError, match=f"no end after {MOST_FIRINGS} firings, the last of on"):
        kind(f"endless-{kind.__name__}", {"on": [Condition("x", "is", 1)]}).run({"x": 1}, lambda rule, facts: facts)


@each_engine
def test_a_situation_without_a_rule_is_an_error_at_any_step(kind):
    """Such an event is an exception in durable_rules, and deleting its session a segmentation fault."""
    engine = kind(f"none-{kind.__name__}", {"small": [Condition("x", "below", 2)]})
    for first in (5, 1):
        with pytest.raises(RulesError, match=r"no rule for \{'x': 5\}"):
            engine.run({"x": first}, lambda *_: {"x": 5})
    assert engine.run({"x": 1}, lambda *_: None) == ["small"]


@each_engine
def test_a_fact_that_a_rule_asks_for_must_be_there(kind):
    """Missing facts make every comparison false in durable_rules, so a slip in a name would go unseen."""
    engine = kind(f"missing-{kind.__name__}", {"R": [Condition("x", "is", 1), Condition("z", "below", Other("y"))]})
    with pytest.raises(RulesError, match="ask for y, z, which"):
        engine.run({"x": 1}, lambda *_: None)


@each_engine
@pytest.mark.parametrize("name", ["id", "sid", "event"])
def test_names_that_durable_rules_keeps_for_itself_are_refused(kind, name):
    """Two events with the same ``id`` are one event there."""
    with pytest.raises(RulesError, match=f"{name} cannot be the name of a fact"):
        kind(f"named-{name}-{kind.__name__}", {"R": [Condition("x", "is", 1)]}).run({"x": 1, name: 1}, lambda *_: None)


@each_engine
def test_equal_situations_one_after_the_other_are_two_events(kind):
    """An equal event is refused by durable_rules as already observed."""
    left = iter([{"x": 1}, {"x": 1}, None])
    assert kind(f"equal-{kind.__name__}", {"R": [Condition("x", "is", 1)]}).run({"x": 1}, lambda *_: next(left)) == ["R"] * 3


@each_engine
def test_the_callers_facts_are_left_alone(countdowns, kind):
    """durable_rules writes a session into the events that are posted from its actions."""
    facts = situation(1)
    countdowns[kind].run(facts, count_down)
    assert facts == situation(1)


@each_engine
def test_a_walk_within_a_walk(countdowns, kind):
    """A remedy may plan another job with the same rules."""
    inner = []

    def nested(rule, facts):
        if facts["left"] == 2:
            inner.extend(countdowns[kind].run(situation(3), count_down))
        return count_down(rule, facts)

    assert countdowns[kind].run(situation(4), nested) == ["even", "odd", "even", "odd", "end"]
    assert inner == ["odd", "even", "odd", "end"]


@each_engine
def test_four_threads_of_200_walks(countdowns, kind):
    """Every thread gets its own verdicts, and no thread is left behind."""
    before, wrong = threading.active_count(), []

    def work(offset: int) -> None:
        for n in range(200):
            start = (n + offset) % 7
            expected = [("even", "odd")[left % 2] for left in range(start, 0, -1)] + ["end"]
            if countdowns[kind].run(situation(start), count_down) != expected:
                wrong.append(start)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert not wrong
    assert threading.active_count() == before


@each_engine
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_walks_on(countdowns, kind):
    """The engine of the parent works in the child."""
    countdowns[kind].run(situation(2), count_down)
    child = os.fork()
    if child == 0:
        right = all(countdowns[kind].run(situation(3), count_down) == ["odd", "even", "odd", "end"] for _ in range(50))
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@each_engine
def test_2000_walks_leave_no_session_behind(countdowns, kind):
    """1,024 sessions live at most, 227 KiB each: 2,000 that stayed would be an error, or 440 MiB. Failed walks count too."""
    statm = "/proc/self/statm"

    def resident() -> int:
        with open(statm) as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def fail(rule, facts):
        raise ValueError

    for n in range(100):
        countdowns[kind].run(situation(n % 3), count_down)
    before = resident() if os.path.exists(statm) else None
    for n in range(2000):
        if n % 4:
            countdowns[kind].run(situation(n % 3), count_down)
        else:
            with pytest.raises(ValueError):  # noqa: PT011
                countdowns[kind].run(situation(3), fail)
    if before is not None:
        assert resident() - before < 20 * 2**20


@with_durable
def test_no_session_is_live_after_a_walk():
    """Every event had one, and its state is gone: asking for it is an error."""
    engine = Durable("sessions", COUNTDOWN)
    engine.run(situation(3), count_down)
    with pytest.raises(Exception, match="309"):
        engine._c.get_state(engine._handle, "1")
    assert next(engine._sessions) == 5


@with_durable
def test_the_engine_says_which_it_is():
    """durable_rules with its version, and a Durable engine."""
    assert engine_name() == "durable_rules 2.0.28"
    assert isinstance(build("named", COUNTDOWN), Durable)


def test_without_durable_rules_the_plain_loop_decides(monkeypatch):
    """On Python 3.13 without the extra nothing is there; built without the flag, it does not load."""
    monkeypatch.setitem(sys.modules, "durable_rules_engine", None)
    assert engine_name() == "plain loop"
    assert isinstance(build("plain", COUNTDOWN), PlainLoop)


@with_durable
def test_the_python_part_of_durable_rules_is_not_loaded():
    """It takes longer to load than all the rest of that, starts threads and swallows what goes wrong in an action."""
    code = (
        "import sys; from advisor.planning.engine import Condition, Durable, engine_name; engine_name();"
        "Durable('one', {'only': [Condition('x', 'is', 1)]}).run({'x': 1}, lambda *_: print('durable' in sys.modules))"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert asked.stdout.strip() == "False"


def test_only_one_module_imports_durable():
    """The seam is advisor/planning/engine.py."""
    package = ROOT / "advisor"
    lines = {path.name: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert [name for name, text in lines.items() if "from durable" in text or "import durable" in text] == ["engine.py"]
