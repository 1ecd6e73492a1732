import numpy as np

from explainkit.data.random_keys import random_keys, uniform


def test_keys_depend_on_words_and_their_order() -> None:
    assert random_keys(1, 2) == random_keys(1, 2)
    assert random_keys(1, 2) != random_keys(2, 1)
    assert len(np.unique(random_keys(0, np.arange(100)[:, None], np.arange(100)))) == 10_000


def test_numbers_are_the_golden_ones() -> None:
    assert uniform(random_keys(np.arange(2), 7), 2).tolist() == GOLDEN


def test_numbers_are_even_and_independent() -> None:
    values = uniform(random_keys(3, np.arange(20_000)), 4)

    assert values.min() >= 0 and values.max() < 1
    assert np.allclose(values.mean(0), 0.5, atol=0.01) and np.allclose(values.var(0), 1 / 12, atol=0.002)
    assert np.abs(np.corrcoef(values.T) - np.eye(4)).max() < 0.03
    assert np.abs(np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]) < 0.03


def test_fewer_numbers_are_the_first_ones() -> None:
    keys = random_keys(np.arange(5))

    assert (uniform(keys, 3) == uniform(keys, 8)[:, :3]).all()


GOLDEN: list[list[float]] = [
    [0.7795886397361755, 0.4773900508880615],
    [0.26905250549316406, 0.49222105741500854],
]
