"""Sizes of encoder and decoder, for every size of image."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st
from plugin_cases import uniform
from prototypednn_networks import network
from torch import nn

from explainkit_prototypednn.autoencoder import Decoder, Encoder, grid_sizes


@pytest.mark.parametrize("kind", ["deconv", "upconv"])
@pytest.mark.parametrize("size", [(28, 28), (32, 32), (64, 64), (29, 45), (8, 3)])
def test_what_is_decoded_has_the_size_of_the_image(size, kind):
    sizes = grid_sizes(size, 4)
    encoder = Encoder(3, 8, 2, 4, "relu")
    decoder = Decoder(3, 8, 2, sizes, "relu", kind)

    maps = encoder(uniform(2, 3, *size))
    pictures = decoder(maps)

    assert maps.shape == (2, 2, *sizes[-1])
    assert pictures.shape == (2, 3, *size)
    assert pictures.min() >= 0 and pictures.max() <= 1


@options(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 5), st.sampled_from(["deconv", "upconv"]))
def test_every_layer_of_the_decoder_is_as_large_as_that_of_the_encoder(height, width, layers, kind):
    sizes = grid_sizes((height, width), layers)
    values, seen = torch.zeros(1, 1, height, width), [(height, width)]
    for module in Encoder(1, 2, 2, layers, "relu").layers:
        values = module(values)
        if isinstance(module, nn.ReLU):
            seen.append(tuple(values.shape[2:]))

    back = [tuple(values.shape[2:])]
    for module in Decoder(1, 2, 2, sizes, "relu", kind).layers:
        values = module(values)
        if isinstance(module, nn.ReLU | nn.Sigmoid):
            back.append(tuple(values.shape[2:]))

    assert seen == sizes and back == sizes[::-1]


def test_the_networks_for_mnist_has_the_parameters_of_the_published_one():
    made = network(10, 15, (28, 28), image_channels=1, width=32, latent_channels=10, layers=4)

    assert sum(value.numel() for value in made.parameters()) == 44_153
    assert made.prototypes.shape == (15, 40)


def test_sigmoid_latents_and_relu_latents_stay_where_edits_expect_them():
    images = uniform(4, 3, 12, 12) * 4 - 2

    assert network(activation="relu").encode(images).min() >= 0
    bounded = network(activation="sigmoid")
    assert bounded.upper == 1 and bounded.encode(images).max() < 1
    assert network(activation="relu").upper == float("inf")
