"""Of all ways up to one, the way that needs least memory: what a search asks before it gives all of them up.

A remedy taken further mostly needs less, so the answer is mostly every rule at its end. Not always: two GPUs need the
buffers that one does not, ZeRO in DeepSpeed fp32 masters; and a rule may shut a later one out. So rules are taken back, the
one first after which least is needed, as long as that helps: each alone, and together those that change the same key of
the job, because that key costs the memory as long as one of them sets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import gt
from typing import NamedTuple

from advisor.planning.remedies import NEVER_MORE
from advisor.planning.space import Space, Way

Places = frozenset[int]  # of rules that are taken back together


class Found(NamedTuple):
    """A way, and the limits up to which every rule is taken in it as far as it can be."""

    limits: Way
    way: Way


class Least:
    """The search for least memory in one space."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._together = _together(space)
        self._never_more = [rule.remedy in NEVER_MORE for rule in space.rules]

    def of(self, box: Way) -> Way:
        """The way up to the box that needs least, as far as taking back helps; or the first that fits."""
        best = self._up_to(box)
        found = None
        while found is not best and not self._space.fits(best.way):
            found = best
            for other in self._others(box, found):
                if self._space.need(other.way) < self._space.need(best.way):
                    best = other
                    if self._space.fits(best.way):
                        break
        return best.way

    def _up_to(self, limits: Way) -> Found:
        return Found(limits, self._space.highest(limits))

    def _others(self, box: Way, found: Found) -> Iterator[Found]:
        """The ways after the next thing to try."""
        for places in self._together:
            for rung in _back(found.way, places):
                ways = [self._up_to(_lowered(found.limits, places, rung))]
                if any(map(gt, ways[0].way, found.way)):  # what comes in for them may shut a third one out
                    ways.append(self._up_to(_lowered(found.way, places, rung)))
                yield from (other for other in ways if self._may_help(other.way, found.way))
        for place, limit in enumerate(box):
            # What was taken back beside something else may be of use now, and too far what was taken out of the way.
            for rung in sorted({limit, found.limits[place] + 1}) if found.limits[place] < limit else ():
                yield self._up_to((*found.limits[:place], rung, *found.limits[place + 1 :]))

    def _may_help(self, way: Way, before: Way) -> bool:
        """Not where nothing is new but that a remedy which never needs more is taken less far."""
        return any(
            now > then or (now < then and not never) for now, then, never in zip(way, before, self._never_more, strict=True)
        )


def _back(way: Way, places: Places) -> list[int]:
    """The rungs to go back to: out of the way together, one alone to the rung below first."""
    now = max(way[place] for place in places)
    if not now:
        return []
    return [now - 1, 0] if len(places) == 1 and now > 1 else [0]


def _lowered(limits: Way, places: Places, rung: int) -> Way:
    lowered = list(limits)
    for place in places:
        lowered[place] = min(rung, limits[place])
    return tuple(lowered)


def _together(space: Space) -> list[Places]:
    """Each rule alone, and all rules that change the same key of the job."""
    by_key: dict[str, set[int]] = {}
    for place, seen in enumerate(space.seen):
        for key in {key for rungs in seen for rung in rungs for key in rung.changes}:
            by_key.setdefault(key, set()).add(place)
    alone = [frozenset([place]) for place in range(len(space.rules))]
    return list(dict.fromkeys([*alone, *map(frozenset, by_key.values())]))
