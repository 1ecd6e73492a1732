import pytest
import torch
from attrs import evolve

from explainkit.errors import InputError
from explainkit.metrics.baselines import (
    TRIVIAL,
    area,
    brightness_slopes,
    center,
    fixed_pixel,
    ideal_observer,
    mean_of_others,
    oracle,
    randomized_weights,
    shuffled,
)
from explainkit.metrics.localization import pointing


@pytest.mark.parametrize("name", TRIVIAL)
def test_every_row_bears_its_name_and_has_finite_scores_for_every_part(small, name) -> None:
    row = TRIVIAL[name](small.context())

    assert row.name == name and row.trivial
    assert row.part_scores.shape == (6, 7) and row.part_scores.isfinite().all()


@pytest.mark.parametrize("name", TRIVIAL)
def test_every_row_is_the_same_the_next_time(small, name) -> None:
    one, other = (TRIVIAL[name](small.context()) for _ in range(2))

    assert torch.equal(one.part_scores, other.part_scores)


def test_the_mean_of_others_never_sees_the_image_itself() -> None:
    scores = torch.tensor([[1.0], [3.0], [5.0], [100.0]])
    targets = torch.tensor([0, 0, 0, 1])

    assert mean_of_others(scores, targets).flatten().tolist() == [4, 3, 2, 3]  # the last one: of all others


def test_the_oracle_adds_up_to_what_is_seen(small) -> None:
    context = small.context()

    worth = context.truth.shapley * context.masks.flatten(2).any(2)

    torch.testing.assert_close(
        oracle(context).saliency.sum((1, 2)).double(), worth.sum(1), rtol=1e-4, atol=1e-5
    )


def test_area_scores_a_part_by_the_pixels_about_it(small) -> None:
    row = area(small.context())

    assert (row.part_scores[row.context.masks.flatten(2).any(2)] > 0).all()
    assert set(row.saliency.unique().tolist()) == {0, 1}


def test_edges_are_where_brightness_changes_and_not_at_the_frame() -> None:
    images = torch.zeros(1, 3, 8, 8)
    images[..., 4:] = 1

    slopes = brightness_slopes(images)[0]

    assert (slopes[:, 3:5] == 4).all() and slopes[:, :3].sum() == slopes[:, 5:].sum() == 0


def test_the_center_is_highest_in_the_middle(small) -> None:
    assert center(small.context(1)).saliency[0].flatten().argmax() in (495, 496, 527, 528)


def test_the_fixed_pixel_is_chosen_elsewhere_and_is_the_same_in_every_image(small) -> None:
    row = fixed_pixel(small.context())

    assert (row.saliency == row.saliency[0]).all() and row.saliency[0].sum() == 1
    assert pointing(row).mean > 0.3


def test_no_pixel_is_chosen_on_the_images_that_it_is_measured_on(small) -> None:
    splits = dict.fromkeys(("train", "validation", "test", "mixed"), small.dataset.splits["mixed"])

    with pytest.raises(InputError, match="no other images"):
        fixed_pixel(evolve(small.context(), dataset=evolve(small.dataset, splits=splits)))


def test_the_ideal_observer_points_at_parts_that_support_the_target(small) -> None:
    context = small.context()
    scenes = small.dataset.scenes("mixed", range(6))
    evidence = small.dataset.grammar.evidence(scenes.codes[:, 0], scenes.present[:, 0])

    evidence_by_part = torch.einsum("nhw,nphw->np", ideal_observer(context).saliency, context.masks.float())
    is_evidence = torch.from_numpy(evidence)[torch.arange(6), :, context.targets]
    torch.testing.assert_close(evidence_by_part, (is_evidence & context.masks.flatten(2).any(2)).float())


def test_shuffled_weights_come_back_to_the_last_bit(small) -> None:
    network = small.cam.network
    before = {name: value.clone() for name, value in network.state_dict().items()}

    with pytest.raises(RuntimeError), shuffled(network, seed=0):
        changed = [not torch.equal(value, before[name]) for name, value in network.state_dict().items()]
        assert sum(changed) >= 4
        raise RuntimeError

    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_randomized_weights_explain_otherwise(small) -> None:
    context = small.context()

    assert not torch.allclose(
        randomized_weights(context).saliency, small.cam.explain(context.images).saliency()
    )


def test_what_the_data_do_not_allow_is_an_error(small, plain) -> None:
    context = evolve(small.context(2), dataset=plain, split="test")

    for baseline in (area, fixed_pixel, ideal_observer, oracle):
        with pytest.raises(InputError, match="tiny"):
            baseline(context)
