"""The layer that a layer method explains."""

from collections import OrderedDict

import pytest
import torch
from captum_networks import FORMS, Returning, captum_explainer, hook_count, random_images, seeded_network
from torch import nn

from explainkit.errors import UnknownNameError, UnsupportedNetworkError


def test_the_default_layer_is_the_last_with_more_than_one_cell():
    network = nn.Sequential(OrderedDict(
        first=nn.Conv2d(3, 4, 3), last=nn.Conv2d(4, 4, 3), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(),
        head=nn.Linear(4, 2),
    ))  # fmt: skip
    explainer = captum_explainer("layer-grad-cam", network)

    explanations = explainer.explain(random_images(size=9))

    assert explainer.layer == "last" and explanations.provenance.settings["layer"] == "last"
    assert explanations.maps.shape == (3, 2, 5, 5) and hook_count(network) == 0


def test_a_layer_goes_by_dotted_name_or_by_itself():
    network, images = seeded_network(), random_images()

    by_name = captum_explainer("layer-grad-cam", network, layer="stem.0").explain(images)
    wrapped = Returning(network, FORMS["a tuple"])
    by_itself = captum_explainer("layer-grad-cam", wrapped, layer=network.stem[0]).explain(images)

    assert torch.equal(by_name.maps, by_itself.maps)
    assert by_itself.provenance.settings["layer"] == "inner.stem.0"


@pytest.mark.parametrize(
    ("layer", "error", "words"),
    [
        ("stem.9", UnknownNameError, "Did you mean .*'stem.0'"),
        ("nothing like it", UnknownNameError, "There are: 'stem'"),
        ("head", UnsupportedNetworkError, r"'head' returns \(1, 4\).*'rectify', 'deep'"),
        (nn.Conv2d(3, 3, 1), UnsupportedNetworkError, "not in it"),
    ],
)
def test_a_layer_is_refused_in_words(layer, error, words):
    network = seeded_network()

    with pytest.raises(error, match=words):
        captum_explainer("layer-grad-cam", network, layer=layer)

    assert hook_count(network) == 0


def test_a_layer_is_refused_at_the_first_images_where_nothing_is_known_before():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2 * 20 * 20, 3))
    explainer = captum_explainer("layer-grad-cam", network, layer="1")

    for _ in range(2):
        with pytest.raises(UnsupportedNetworkError, match=r"'1' returns \(1, 800\).*'0'"):
            explainer.explain(random_images(size=20))


def test_a_network_without_grids_has_no_layer_to_take():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 3))

    with pytest.raises(UnsupportedNetworkError, match="of 2 none does"):
        captum_explainer("layer-grad-cam", network).explain(random_images(size=20))
