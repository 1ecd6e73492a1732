"""Claims of what cells see hold, or the check says by how much they do not."""

import warnings
from copy import copy

import pytest
import torch
from attrs import evolve
from leak_cases import noise_dataset, patch_cam

import explainkit as ek
from explainkit.errors import ConformanceError
from explainkit.explanations.receptive_field import ReceptiveField
from explainkit.testing import CHECKS, check_explainer, fitted_example, tiny_dataset, tiny_images
from explainkit.testing.place_checks import check_cell_leak


def claiming(name, **changes):
    """A fitted example that claims something else of what its cells see."""
    explainer = copy(fitted_example(name))
    field = explainer.units.receptive_field
    claim = evolve(field, **changes) if field is not None else ReceptiveField(**changes)
    explainer.units = evolve(explainer.units, receptive_field=claim)
    return explainer


def test_it_is_one_of_the_checks() -> None:
    assert check_cell_leak in CHECKS


@pytest.mark.parametrize("name", ["cam", "protopnet", "ccnn"])
def test_networks_on_local_cells_keep_every_promise(name) -> None:
    explainer = ek.explainer(name, preset="tiny", backbone="local", backbone_settings={"width": 32})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of captions too few to tell phrases apart
        explainer.fit(tiny_dataset(), seed=0, device="cpu", progress=False)

    check_explainer(explainer)

    assert explainer.units.receptive_field == ReceptiveField(size=19, stride=4, first_pixel=-8)


@pytest.mark.parametrize("name", ["cam", "protopnet", "ccnn"])
def test_a_claim_of_a_smaller_field_is_refused_with_the_numbers(name) -> None:
    with pytest.raises(ConformanceError, match=r"size=15.* sees \d+ of 961 pixels .*changes by .*at most"):
        check_cell_leak(claiming(name, size=15, first_pixel=-7), tiny_images()[..., :31, :31])


def test_a_field_at_another_place_is_refused() -> None:
    with pytest.raises(ConformanceError, match="no pixel outside"):
        check_cell_leak(claiming("cam", first_pixel=-3), tiny_images())


def test_a_larger_field_is_no_lie() -> None:
    check_cell_leak(claiming("cam", size=27, first_pixel=-13), tiny_images())


def test_a_network_that_takes_the_mean_of_the_image_off_is_found_out() -> None:
    images = noise_dataset().test.batch(torch.arange(2)).images

    check_cell_leak(patch_cam(), images)
    check_cell_leak(patch_cam(share=1.0, claim=False), images)
    with pytest.raises(ConformanceError, match="check_cell_leak: Expected cells that no pixel outside"):
        check_explainer(patch_cam(share=1.0), images)


def test_a_dependence_that_images_do_not_show_is_found_by_its_gradient() -> None:
    images = noise_dataset().test.batch(torch.arange(2)).images

    with pytest.raises(ConformanceError, match="gradients of 0 outside"):
        check_cell_leak(patch_cam(share=1e-7), images)


def test_a_claim_beside_maps_in_boxes_is_refused() -> None:
    with pytest.raises(ConformanceError, match="maps in boxes"):
        check_cell_leak(claiming("ra-cnn", size=5, stride=4, first_pixel=-2), tiny_images())


def test_images_that_cells_see_all_of_are_enlarged(monkeypatch) -> None:
    from explainkit.testing import place_checks

    sizes = []
    check_values = place_checks._check_values

    def spy(explainer, explained, *rest):
        sizes.append(tuple(explained.images.shape[-2:]))
        check_values(explainer, explained, *rest)

    monkeypatch.setattr(place_checks, "_check_values", spy)
    check_cell_leak(fitted_example("cam"), tiny_images()[..., :12, :12])

    assert sizes == [(39, 39)]
