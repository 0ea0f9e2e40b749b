"""From the figures of a message to its cause: each rule on both sides of its threshold."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import BEFORE_1_4, FROM_2_2, SAMPLES, TO_2_0, torch

from advisor import diagnose
from advisor.data import data_folder
from advisor.planning.engine import OPERATORS, PlainLoop, build, installed
from advisor.triage import rulebook
from advisor.triage.facts import device, outside

GIB = 2**30
RULES = tomllib.loads((data_folder("rules") / "triage.toml").read_text(encoding="utf-8"))
CAUSES = {"capacity", "fragmentation", "other-process", "leak", "limit", "kv-cache", "host-memory", "not-memory", "misreport",
          "benign", "unknown"}  # fmt: skip


def cause(form: str = FROM_2_2, before: str = "", **figures: str) -> str:
    return diagnose(f"{before}\n{torch(form, **figures)}").cause


def test_pieces_only_where_the_request_would_fit() -> None:
    """Unused memory of more than was asked for, and room for it on the card: else it is the card that is too small."""
    assert cause(alloc="6.00 GiB", gap="4.75 GiB") == "fragmentation"
    assert cause(alloc="6.00 GiB", gap="4.75 GiB", tried="5.20 GiB") == "capacity"
    assert cause(alloc="10.20 GiB", gap="0.05 GiB", tried="40.00 MiB", free="8.00 MiB") == "capacity"
    assert cause(TO_2_0, alloc="6.00 GiB", held="10.75 GiB") == "fragmentation"  # reserved includes allocated
    assert cause(BEFORE_1_4, alloc="6.00 GiB", gap="4.75 GiB") == "fragmentation"


def test_the_hint_of_the_message_is_no_evidence() -> None:
    """PyTorch prints it always."""
    assert cause(gap="40.00 MiB") == "capacity"


def test_others_count_from_a_share_of_the_card_on() -> None:
    """An idle context of half a GiB is no cause."""
    own = "Including non-PyTorch memory, this process has 10.90 GiB memory in use. "
    assert cause(processes="Process 77 has 470.00 MiB memory in use. " + own) == "capacity"
    assert cause(alloc="6.00 GiB", processes="Process 77 has 4.50 GiB memory in use. " + own) == "other-process"


def test_others_are_what_the_figures_leave_where_none_is_listed() -> None:
    """ROCm and Windows list no process; 0.8 GiB are this one's context."""
    assert cause(TO_2_0, alloc="4.00 GiB", held="4.25 GiB") == "other-process"
    assert cause(TO_2_0, alloc="9.90 GiB", held="10.10 GiB") == "capacity"


def test_in_a_container_this_process_is_the_one_that_fits() -> None:
    """No listed number is its own, and the smallest that holds what it says it holds is it."""
    listed = [{"pid": 1, "bytes": 9 * GIB}, {"pid": 2, "bytes": 6 * GIB}, {"pid": 3, "bytes": GIB}]
    assert outside({"processes": listed}, 5 * GIB) == 10 * GIB
    assert outside({"processes": listed[1:2]}, 5 * GIB) == 0
    assert outside({"processes": listed[1:], "process_in_use_bytes": 2 * GIB}, GIB) == 7 * GIB


def test_refused_though_free() -> None:
    """Ten times what was asked for is free: the card is not full, unless others just left it."""
    assert cause(tried="10.00 MiB", alloc="1.00 GiB", free="9.00 GiB", gap="0 bytes") == "misreport"
    assert (
        cause(
            tried="10.00 MiB",
            alloc="1.00 GiB",
            free="3.00 GiB",
            gap="0 bytes",
            processes="Process 7 has 7.00 GiB memory in use. Including non-PyTorch memory, this process has 1.40 GiB memory in use. ",
        )
        == "other-process"
    )
    assert cause(tried="300.00 MiB", free="310.00 MiB", gap="0 bytes") == "capacity"  # rounded to whole segments


def test_what_no_card_holds() -> None:
    """More than the whole card, or more allocated than it has, as Windows does."""
    assert cause(tried="14.00 GiB") == "capacity"
    assert cause(tried="1.00 GiB", alloc="17.00 GiB", gap="2.00 GiB") == "capacity"


def test_a_cap_below_the_card() -> None:
    """set_per_process_memory_fraction prints what it allows."""
    assert cause(total="79.15 GiB", processes="39.57 GiB allowed; ", alloc="38.00 GiB") == "limit"


def test_memory_that_rises_from_step_to_step() -> None:
    """At the same shapes; a single peak is none."""
    steps = [f"step {100 * n} | loss 2.{n} | mem {4 + n}.50 GiB" for n in range(7)]
    assert cause(before="\n".join(steps)) == "leak"
    assert cause(before="\n".join([*steps[:5], "step 500 | loss 2.1 | mem 4.60 GiB"])) == "capacity"
    assert cause(before="\n".join(f"step {n} | mem 10.{n}0 GiB" for n in range(7))) == "capacity"
    assert cause(before="\n".join(f"Epoch 1 [{n}/900] eta: 0:02:2{n} max mem: {4000 + 900 * n}" for n in range(7))) == "leak"


def test_the_evaluation_grows() -> None:
    """The training step had fitted."""
    frames = '  File "/x/transformers/trainer.py", line 4400, in evaluation_loop\n    all_preds.add(logits)'
    found = diagnose(f"{frames}\n{torch(FROM_2_2, tried='60.00 MiB', gap='20.00 MiB', free='11.00 MiB')}")
    assert (found.cause, found.phase, found.remedies[0].action) == ("leak", "eval", "eval_accumulation_steps")


def test_unified_memory() -> None:
    """Nothing is allocated, and the runtime sees a small carve-out."""
    text = torch(FROM_2_2, tried="16.00 GiB", total="15.50 GiB", alloc="0 bytes", gap="0 bytes", free="15.30 GiB")
    assert diagnose(text.replace("CUDA out", "HIP out") + "\namdgpu: gfx1151").cause == "limit"
    assert diagnose(text.replace("CUDA out", "HIP out")).cause == "capacity"


def test_what_an_allocator_does_not_say_is_nobody_elses() -> None:
    """cudaMallocAsync does not print what its pool holds."""
    text = "Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated : 14.00 GiB\nRequested : 3.00 GiB\nDevice limit : 22.00 GiB\nFree (according to CUDA): 9.00 MiB"
    assert diagnose(text).cause == "capacity"


def test_the_pinned_words() -> None:
    """The driver says the same of the host's pinned memory as of the card's."""
    frame = '  File "/x/torch/utils/data/_utils/pin_memory.py", line 60, in _pin_memory_loop'
    assert diagnose(f"{frame}\nRuntimeError: CUDA error: out of memory").cause == "host-memory"
    assert diagnose("RuntimeError: CUDA error: out of memory").cause == "capacity"


@pytest.mark.parametrize("table", ["cause", "treatment", "capacity"])
def test_rules_are_written_in_known_words(table: str) -> None:
    """Facts, operators, causes and remedies, each of its kind; like is compared with like."""
    import io

    from advisor.triage import facts
    from advisor.triage.extract import passage
    from advisor.triage.reader import read

    spot = read(io.BytesIO(SAMPLES[0].text.encode())).spots[0]
    known = {**facts.situation(spot.message, True, {}, passage(spot)).facts, "cause": ""}
    for rule in RULES[table]:
        for clause in rulebook.conditions(rule):
            assert clause.fact in known, rule
            assert type(clause.value) is type(known[clause.fact]), (rule, clause)
            assert clause.operator in OPERATORS
        if table == "cause":
            assert rule["cause"] in CAUSES
            assert rule["certainty"] in ("high", "medium", "low")
            assert rule["why"]
        else:
            assert rule["do"]
            assert set(rule["do"]) <= rulebook.actions().keys()


def test_every_remedy_is_used_and_says_how() -> None:
    """A remedy without a place is dead weight; one without words for every framework says nothing."""
    used = {action for table in ("treatment", "capacity") for rule in RULES[table] for action in rule["do"]}
    assert used == set(rulebook.actions())
    for action in rulebook.actions().values():
        assert all((action.title, action.why, action.how["any"])), action.name


def test_kinds_and_families_that_rules_name_exist() -> None:
    """A rule on a misspelt kind would never fire."""
    from advisor.triage import grammar

    messages = grammar.load().messages
    words = {"kind": {one.kind for one in messages}, "family": {one.family for one in messages}}
    for table in ("cause", "treatment", "capacity"):
        for rule in RULES[table]:
            for clause in rulebook.conditions(rule):
                assert clause.value in words.get(clause.fact, {clause.value}), rule


@pytest.mark.skipif(not installed(), reason="durable_rules is not installed here")
def test_both_engines_say_the_same() -> None:
    """Of every sample, in each set of rules."""
    import io

    from advisor.triage import facts
    from advisor.triage.extract import fields, passage
    from advisor.triage.reader import read

    for table in ("cause", "treatment", "capacity"):
        rules = {f"{table}-{place}": rulebook.conditions(rule) for place, rule in enumerate(RULES[table], start=1)}
        durable, plain = build(f"both-{table}", rules), PlainLoop(table, rules)
        for sample in SAMPLES:
            spot = read(io.BytesIO(sample.text.encode())).spots[0]
            text = passage(spot)
            told = facts.situation(spot.message, bool(spot.message.tier), fields(spot, text), text).facts
            for reason in sorted(CAUSES if table == "treatment" else {"capacity"}):
                if table == "treatment" and reason in rulebook.CAPACITY:
                    continue
                asked = {**told, "cause": reason}
                try:
                    expected = plain.run(asked, lambda *_: None)
                except RuntimeError:  # a cause that this kind of message never has
                    continue
                assert durable.run(asked, lambda *_: None) == expected


AMOUNT = st.floats(0, 200).map(lambda amount: f"{amount:.2f} GiB")


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from([BEFORE_1_4, TO_2_0, FROM_2_2]),
    figures=st.fixed_dictionaries(dict.fromkeys(("tried", "total", "alloc", "free", "gap", "held"), AMOUNT)),
)
def test_whatever_the_figures_there_is_one_cause_and_something_to_do(form: str, figures: dict[str, str]) -> None:
    """Also where they contradict each other; and JSON takes it all."""
    found = diagnose(torch(form, **figures))
    assert found.cause in CAUSES - {"unknown", "benign"}
    assert found.remedies
    assert json.loads(json.dumps(found.to_dict()))["fields"] == found.fields


def test_a_card_in_figures() -> None:
    """`reserved` includes what is allocated, `cached` and `unallocated` do not."""
    old = device({"total_capacity_bytes": 10, "allocated_bytes": 4, "reserved_bytes": 7, "free_bytes": 1})
    assert (old.gap, old.total) == (3, 10)
    assert device({"allocated_bytes": 4, "cached_bytes": 3}).gap == 3
    assert device({"total_capacity_bytes": 10, "allowed_bytes": 6}).total == 6
    assert device({"total_capacity_bytes": 10, "allowed_bytes": 2**70}).total == 10
