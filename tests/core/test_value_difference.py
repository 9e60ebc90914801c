"""The comparison of a value with the same value read back."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from enum import StrEnum
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from murmur_streams.core.value_difference import difference


class Level(StrEnum):
    LOW = "low"


class Pair(NamedTuple):
    first: Any
    second: Any


class Small(BaseModel):
    item: Any
    other: Any = 1


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    item: Any


leaves = st.sampled_from([None, True, False, 0, 1, 0.0, -0.0, 1.0, math.nan, "", "low", Level.LOW])
values = st.recursive(
    leaves,
    lambda children: (
        st.lists(children, max_size=3)
        | st.lists(children, max_size=3).map(tuple)
        | st.builds(Pair, children, children)
        | st.dictionaries(leaves, children, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b"]), children).map(OrderedDict)
        | st.builds(Small, item=children, other=children)
        | st.builds(Open, item=children, extra=children)
        | st.frozensets(leaves, max_size=2)
    ),
    max_leaves=6,
)


@settings(max_examples=500)
@given(st.tuples(values, values) | values.map(lambda value: (value, copy.deepcopy(value))))
def test_the_quick_comparison_only_finds_equal_values(pair: tuple[Any, Any]) -> None:
    """Without it, the same differences are found at the same paths."""
    before, after = pair
    found = difference(before, after)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("murmur_streams.core.value_difference._is_clearly_equal", lambda *_: False)
        assert str(found) == str(difference(before, after))


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (1, True, "value: int would become bool"),
        ([1], (1,), "value: list would become tuple"),
        ({"a": [0, "low"]}, {"a": [0, Level.LOW]}, "a.1: str would become Level"),
        ({None: 1}, {"None": 1}, "value: dict would arrive with another value"),
        ({"low": 1}, {Level.LOW: 1}, "value: dict would arrive with another value"),
        (Small(item=1), Small(item=2), "item: int would arrive with another value"),
        (Open(item=1), Open.model_validate({"item": 1, "b": 2}), "would arrive with another value"),
        (Small(item=math.nan), Small(item=float("nan")), "item: float would arrive"),
    ],
)
def test_a_difference_is_found(before: Any, after: Any, found: str) -> None:
    """The text names its path and what would change."""
    assert found in str(difference(before, after))


def test_members_in_another_order_are_equal() -> None:
    """The order of a dict's members is not a part of its value."""
    assert difference({"a": 1, "b": [2]}, {"b": [2], "a": 1}) is None
