from itertools import permutations

import numpy as np
import pytest
import torch

from explainkit.data.datasets.aviary.grammar import PARTS
from explainkit.data.datasets.aviary.interventions import remove, subsets
from explainkit.errors import InputError
from explainkit.metrics import EvalContext, part_truth, shapley


def by_definition(game: list[float], players: int) -> list[float]:
    """The mean of what each player adds, over every order in which they can come."""
    worth, orders = [0.0] * players, list(permutations(range(players)))
    for order in orders:
        coalition = 0
        for player in order:
            worth[player] += (game[coalition | 1 << player] - game[coalition]) / len(orders)
            coalition |= 1 << player
    return worth


@pytest.mark.parametrize("players", [1, 2, 3, 5])
def test_shapley_values_are_those_of_the_definition(players) -> None:
    games = torch.randn(3, 1 << players, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    values = shapley(games)

    expected = [by_definition(game, players) for game in games.tolist()]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(values.sum(1), games[:, -1] - games[:, 0])


def test_players_who_are_alike_have_the_same_worth_to_the_last_bit() -> None:
    sizes = torch.tensor([bin(s).count("1") for s in range(128)], dtype=torch.float64)

    worth = shapley((sizes / 3).sqrt()[None])

    assert (worth == worth[0, 0]).all()


def test_every_subset_is_the_scene_drawn_without_the_other_parts(small) -> None:
    scenes = small.dataset.scenes("mixed", range(3))
    drawn = torch.from_numpy(small.dataset.draw(subsets(scenes)).images).float() / 255

    truth = small.context(3).truth

    torch.testing.assert_close(truth.logits.flatten(0, 1), small.cam.predict(drawn), rtol=1e-4, atol=1e-5)
    assert truth.present.tolist() == scenes.present[:, 0].tolist()


def test_a_picture_is_drawn_once_however_many_subsets_look_like_it(small) -> None:
    shown = []
    scenes = small.dataset.scenes("mixed", range(6))

    def predict(images):
        shown.append(len(images))
        return torch.zeros(len(images), 5)

    part_truth(predict, small.dataset.splits["mixed"], torch.arange(6), torch.zeros(6, dtype=torch.long))

    assert sum(shown) == sum(2 ** int(count) for count in scenes.present[:, 0].sum(1))


def test_a_part_that_is_not_there_is_worth_exactly_nothing(small) -> None:
    truth = small.context().truth

    assert (truth.shapley[~truth.present] == 0).all() and (~truth.present).any()
    torch.testing.assert_close(truth.shapley.sum(1), truth.values[:, -1] - truth.values[:, 0])


def test_the_truth_of_the_observer_is_its_contributions(small) -> None:
    context = small.context(explainer=small.observer)
    explanations = small.observer.explain(context.batch, context.targets)

    torch.testing.assert_close(context.truth.shapley, explanations.contributions.double())


def test_a_centered_truth_is_blind_to_what_all_classes_share(small) -> None:
    from attrs import evolve

    truth = evolve(small.context(2).truth, value="centered")
    shifted = evolve(truth, logits=truth.logits.double() + torch.randn(2, 128, 1, dtype=torch.float64))

    torch.testing.assert_close(shifted.shapley, truth.shapley)


def test_a_removed_part_is_the_subset_without_it(small) -> None:
    context = small.context(2)
    wing = PARTS.index("wing")
    without = small.dataset.render(remove(small.dataset.scenes("mixed", np.arange(2)), "wing"))

    torch.testing.assert_close(
        context.truth.logits[:, 127 - (1 << wing)], small.cam.predict(without), rtol=1e-4, atol=1e-5
    )


def test_data_without_scenes_are_refused_in_words(plain, small) -> None:
    context = EvalContext(explainer=small.cam, dataset=plain, split="test", ids=torch.arange(2))

    with pytest.raises(InputError, match="tiny cannot be drawn again"):
        context.truth  # noqa: B018
