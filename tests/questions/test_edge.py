"""The edge that a search ends at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from advisor.questions.edge import edge

PLACES = st.integers(0, 200)


@given(st.sets(PLACES), st.integers(1, 60))
def test_a_value_fits_and_the_next_does_not_whatever_the_order(fitting: set[int], step: int) -> None:
    """Even where what fits has holes."""
    found = edge(fitting.__contains__, 0, 200, step)
    if found is None:
        assert 0 not in fitting
    else:
        assert found in fitting
        assert found == 200 or found + 1 not in fitting


@given(st.sets(PLACES), st.sets(PLACES), st.integers(1, 60))
def test_where_more_fits_the_edge_is_not_lower(some: set[int], more: set[int], step: int) -> None:
    """A larger card never answers smaller."""
    smaller, larger = edge(some.__contains__, 0, 200, step), edge((some | more).__contains__, 0, 200, step)
    assert smaller is None or (larger is not None and larger >= smaller)


@given(st.integers(0, 2**31))
def test_where_all_below_fits_it_is_the_last(last: int) -> None:
    """However far away."""
    assert edge(lambda value: value <= last, 0, 2**31) == last
