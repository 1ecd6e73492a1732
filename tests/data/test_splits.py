import pytest

from explainkit.data.splits import hold_out, partition
from explainkit.errors import InputError


@pytest.mark.parametrize("count", [3, 4, 7, 30])
@pytest.mark.parametrize("ends", [(0.9,), (0.7, 0.85), (0.0, 1.0)])
def test_each_item_is_in_one_part_in_its_order_and_no_part_is_empty(count, ends):
    items = [f"{n:02}" for n in range(count)]

    parts = partition(items, ends, seed=5)

    assert sorted(item for part in parts for item in part) == items
    assert all(part and part == sorted(part) for part in parts)
    assert partition(items, ends, seed=5) == parts


def test_parts_are_about_as_large_as_requested_and_follow_the_seed():
    parts = partition(range(1000), (0.7, 0.85), seed=0)

    assert [len(part) for part in parts] == [700, 150, 150]
    assert partition(range(1000), (0.7, 0.85), seed=1) != parts


def test_every_group_has_items_held_out():
    groups = {"a": ["a1", "a2"], "b": [f"b{n}" for n in range(10)]}

    remaining, drawn = hold_out(groups, 0.3, seed=0)

    assert sorted(remaining + drawn) == sorted(groups["a"] + groups["b"])
    assert [name[0] for name in drawn] == ["a", "b", "b", "b"]
    with pytest.raises(InputError, match=r"at least two training images of a class.*'a' has 1"):
        hold_out({"a": ["a1"]}, 0.3, seed=0)
