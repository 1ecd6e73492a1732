"""The conceptizer, and what it draws."""

import pytest
import torch
from plugin_cases import uniform, whole_split
from senn_networks import doubles, fitted_explainer, image_network

import explainkit as ek
from explainkit.testing import tiny_dataset
from explainkit_senn.concepts import ConvConceptizer
from explainkit_senn.lenet import LeNet


@pytest.mark.parametrize("concepts", [1, 5, 20])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (24, 40), (32, 32), (96, 64)])
def test_what_is_drawn_has_the_size_of_the_image(concepts, size):
    conceptizer = ConvConceptizer(concepts, 3, size, width=4)

    encoded = conceptizer.encode(uniform(2, 3, *size))

    assert encoded.shape == (2, concepts)
    drawn = conceptizer.decode(encoded)
    assert drawn.shape == (2, 3, *size) and drawn.min() >= 0 and drawn.max() <= 1


@pytest.mark.parametrize("size", [(27, 27), (30, 32), (4, 4), (16,), (0, 0)])
def test_sizes_that_cannot_be_halved_twice_are_refused_in_words(size):
    with pytest.raises(ek.InputError, match=r"multiple of 4.*Resize"):
        ConvConceptizer(3, 3, size)


def test_images_of_another_size_are_refused_in_words():
    with pytest.raises(ek.InputError, match=r"\(32, 32\).*\(64, 64\).*Resize"):
        fitted_explainer().explain(torch.rand(1, 3, 64, 64))
    with pytest.raises(ek.InputError, match="16 pixels"):
        LeNet()(torch.rand(1, 3, 12, 28))


def test_a_gray_conceptizer_sees_the_mean_of_the_colors():
    network, images = image_network(channels=1), doubles(3, 3, 16, 16)

    torch.testing.assert_close(network.concepts_of(images), network.concepts_of(images.flip(1)))
    colored = image_network()
    assert not torch.allclose(colored.concepts_of(images), colored.concepts_of(images.flip(1)))
    assert network.train().outputs(images).reconstruction.shape == (3, 1, 16, 16)


def test_concepts_of_images_begin_at_mean_1_and_deviation_1():
    dataset = tiny_dataset()
    torch.manual_seed(0)
    task = ek.Task(classes=dataset.classes, size=dataset.size, dataset=dataset)
    network = ek.explainer("senn", preset="tiny").build(task).eval()

    with torch.no_grad():
        concepts = network.concepts_of(whole_split(dataset, "train").images)

    torch.testing.assert_close(concepts.mean(0), torch.ones(4), atol=0.02, rtol=0)
    torch.testing.assert_close(concepts.std(0), torch.ones(4), atol=0.02, rtol=0)
