"""Windows and patches that are covered."""

import sys

import pytest
import torch
from captum_networks import captum_explainer, random_images, seeded_network, tolerance_of
from plugin_cases import assert_near

import explainkit as ek
from explainkit_captum.patches import divide_by_patch, patch_mask
from explainkit_captum.perturbation import steps


def test_occlusion_covers_an_eighth_of_the_image_by_half_steps():
    assert steps((64, 40), None, None) == ((8, 5), (4, 2))
    assert steps((4, 4), None, None) == ((1, 1), (1, 1))
    assert steps((64, 64), 16, None) == ((16, 16), (8, 8))
    assert steps((64, 64), (6, 8), (3, 2)) == ((6, 8), (3, 2))


def test_patches_are_a_grid_superpixels_or_the_users_own():
    images = torch.zeros(2, 3, 20, 30)
    images[0, :, :10] = 1
    images[1, :, :, :10] = 1
    labels = torch.full((20, 30), 7)
    labels[5:] = 9

    squares, own = patch_mask(images, (2, 3)), patch_mask(images, labels)
    superpixels = patch_mask(images, "superpixels")

    assert squares.shape == (1, 1, 20, 30) and squares.unique().tolist() == list(range(6))
    assert squares[0, 0, 9, 9] == 0 and squares[0, 0, 10, 10] == 4 and squares[0, 0, 19, 29] == 5
    assert own.unique().tolist() == [0, 1] and own[0, 0, 4, 0] == 0 and own[0, 0, 5, 0] == 1
    assert superpixels.shape == (2, 1, 20, 30)
    for image, mask in zip(images, superpixels, strict=True):
        patches = mask.unique()
        assert patches.tolist() == list(range(len(patches))) and len(patches) > 4
        assert all(image[0][mask[0] == patch].unique().numel() == 1 for patch in patches)


def test_a_patch_shares_what_it_adds_among_its_pixels():
    mask = torch.tensor([[0, 0, 0], [0, 1, 1]])[None, None]
    values = torch.tensor([2.0, -3.0])[mask].expand(1, 3, 2, 3)

    shared = divide_by_patch(values, mask).sum(1)

    assert_near(shared, torch.tensor([[0.5, 0.5, 0.5], [0.5, -1.5, -1.5]])[None])


@pytest.mark.parametrize("method", ["feature-ablation", "shapley-value-sampling", "kernel-shap", "lime"])
def test_superpixels_may_differ_in_number_from_image_to_image(method):
    images = random_images(3)
    images[1] = 0.5

    explainer = captum_explainer(method, seeded_network(), patches="superpixels")

    explanations = explainer.explain(images)

    alone = explainer.explain(images[1:2])
    assert_near(explanations[[1]].saliency(), alone.saliency(), tolerance_of(method))


def test_optional_libraries_are_named_where_they_are_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)

    with pytest.raises(ek.ExplainKitError, match=r"explainkit-sdk\[surrogates\]"):
        captum_explainer("lime", seeded_network()).explain(random_images())
    with pytest.raises(ek.ExplainKitError, match=r"explainkit-sdk\[superpixels\]"):
        captum_explainer("feature-ablation", seeded_network(), patches="superpixels").explain(random_images())
