import numpy as np
import pytest

from explainkit.data.keyed import dealt, held_out, keyed, uniforms
from explainkit.errors import InputError


def test_keys_are_told_by_words_and_their_order() -> None:
    assert keyed(1, 2) == keyed(1, 2)
    assert keyed(1, 2) != keyed(2, 1)
    assert len(np.unique(keyed(0, np.arange(100)[:, None], np.arange(100)))) == 10_000


def test_numbers_are_the_golden_ones() -> None:
    assert uniforms(keyed(np.arange(2), 7), 2).tolist() == GOLDEN


def test_numbers_are_even_and_independent() -> None:
    values = uniforms(keyed(3, np.arange(20_000)), 4)

    assert values.min() >= 0 and values.max() < 1
    assert np.allclose(values.mean(0), 0.5, atol=0.01) and np.allclose(values.var(0), 1 / 12, atol=0.002)
    assert np.abs(np.corrcoef(values.T) - np.eye(4)).max() < 0.03
    assert np.abs(np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]) < 0.03


def test_fewer_numbers_are_the_first_ones() -> None:
    keys = keyed(np.arange(5))

    assert (uniforms(keys, 3) == uniforms(keys, 8)[:, :3]).all()


GOLDEN: list[list[float]] = [
    [0.7795886397361755, 0.4773900508880615],
    [0.26905250549316406, 0.49222105741500854],
]


@pytest.mark.parametrize("count", [3, 4, 7, 30])
@pytest.mark.parametrize("ends", [(0.9,), (0.7, 0.85), (0.0, 1.0)])
def test_items_are_dealt_once_each_in_their_order_and_no_part_is_empty(count, ends):
    items = [f"{n:02}" for n in range(count)]

    parts = dealt(items, ends, seed=5)

    assert sorted(item for part in parts for item in part) == items
    assert all(part and part == sorted(part) for part in parts)
    assert dealt(items, ends, seed=5) == parts


def test_shares_are_about_what_was_asked_for_and_follow_the_seed():
    parts = dealt(range(1000), (0.7, 0.85), seed=0)

    assert [len(part) for part in parts] == [700, 150, 150]
    assert dealt(range(1000), (0.7, 0.85), seed=1) != parts


def test_what_is_held_out_is_of_every_group():
    groups = {"a": ["a1", "a2"], "b": [f"b{n}" for n in range(10)]}

    kept, drawn = held_out(groups, 0.3, seed=0)

    assert sorted(kept + drawn) == sorted(groups["a"] + groups["b"])
    assert [name[0] for name in drawn] == ["a", "b", "b", "b"]
    with pytest.raises(InputError, match=r"at least two training images of a class.*'a' has 1"):
        held_out({"a": ["a1"]}, 0.3, seed=0)
