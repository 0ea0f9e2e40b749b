"""What the search takes for granted of rules, remedies and facts, on jobs drawn at random."""

from __future__ import annotations

import random

import pytest
from oracle import rungs
from random_jobs import late_job

from advisor.estimator import estimate_workload
from advisor.planning.facts import HOW, WORKED_OUT, keys_of
from advisor.planning.remedies import KEYS_OF, NEVER_MORE, REMEDIES
from advisor.planning.space import CHANGED, Space, Way
from advisor.planning.walk import book_of
from advisor.workload import Workload, resolve

SEEDS = range(60)


def space_of(w: Workload) -> Space:
    return Space(w, list(book_of(w).rule), resolve, estimate_workload)


def some_way(space: Space, drawn: random.Random) -> Way:
    way: Way = ()
    for _ in space.rules:
        top = len(space.rungs(way))
        way = (*way, drawn.choice((0, 0, 0, *range(1, top + 1))) if top else 0)
    return way


@pytest.mark.parametrize("seed", SEEDS)
def test_how_far_a_rule_goes_depends_on_its_keys_alone(seed):
    """A search works a rule out once for all ways that leave its keys as they are; worked out anew it is the same."""
    w = late_job(seed)
    space, drawn = space_of(w), random.Random(seed)
    for way in [some_way(space, drawn) for _ in range(6)]:
        for place, rule in enumerate(space.rules):
            before = space.job(way[:place])
            if before is None:
                break
            anew = rungs(rule, before)
            known = space.rungs(way[:place])
            assert [cost for _, cost, _ in anew] == [rung.cost for rung in known], (rule.id, way)
            for new, _, number in anew:
                assert space.job((*way[:place], number)) == new, (rule.id, way)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_remedy_that_never_needs_more_never_does(seed):
    """Wherever it is taken: a search does not try what is left without it."""
    w = late_job(seed)
    space, drawn = space_of(w), random.Random(seed)
    for way in [some_way(space, drawn) for _ in range(6)]:
        for place, rule in enumerate(space.rules):
            if rule.remedy in NEVER_MORE:
                ways = [(*way[:place], number) for number in range(len(space.rungs(way[:place])) + 1)]
                needs = [space.need(each)[1] for each in ways if space.job(each) is not None]
                assert needs == sorted(needs, reverse=True), (rule.id, way)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fact_changes_with_its_keys_only(seed):
    """A fact that is worked out is the same for two jobs that differ in none of the keys that it is said to depend on."""
    w = late_job(seed)
    space, drawn = space_of(w), random.Random(seed)
    for other in filter(None, (space.job(some_way(space, drawn)) for _ in range(20))):
        differing = {key for key in CHANGED if getattr(w, key) != getattr(other, key)}
        for fact in WORKED_OUT:
            if HOW[fact](w) != HOW[fact](other):
                assert differing & set(keys_of(fact)), fact


def test_every_remedy_has_its_keys():
    """A rule of a remedy without them could not be searched."""
    assert KEYS_OF.keys() == REMEDIES.keys()
    assert REMEDIES.keys() >= NEVER_MORE
