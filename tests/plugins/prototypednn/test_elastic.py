"""Elastic distortion: by SciPy image by image, keyed by id, the identity where it should be."""

import numpy as np
import torch
from plugin_cases import uniform
from scipy.ndimage import gaussian_filter, map_coordinates

import explainkit as ek
from explainkit.data.random_keys import random_keys
from explainkit.data.random_keys import uniform as keyed
from explainkit_prototypednn.elastic import ElasticDistortion


def batch_of(images, ids=None):
    ids = torch.arange(len(images)) if ids is None else ids
    return ek.Batch(images=images, labels=torch.zeros(len(images), dtype=torch.long), ids=ids)


def literal(image, id, seed, epoch, alpha=20.0, sigma=4.0):
    """One image (D, H, W) as the published code distorts it, with the same random numbers."""
    height, width = image.shape[1:]
    noise = keyed(random_keys(seed, epoch, np.array([id])), 2 * height * width)[0]
    down, right = (
        alpha * gaussian_filter(field, sigma, mode="constant", cval=0)
        for field in 2 * noise.reshape(2, height, width).astype(np.float64) - 1
    )
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack(
        [map_coordinates(channel, [y + down, x + right], order=1, mode="constant") for channel in image]
    )


def test_it_is_what_scipy_makes_of_each_image_away_from_the_border():
    images = uniform(3, 2, 28, 31)

    distorted = ElasticDistortion()(batch_of(images), seed=5, epoch=2).images

    for n in range(3):
        expected = torch.from_numpy(literal(images[n].double().numpy(), n, 5, 2)).float()
        inside = (slice(None), slice(3, -3), slice(3, -3))
        assert (distorted[n][inside] - expected[inside]).abs().max() < 1e-4
    assert (distorted - images).abs().max() > 0.05  # and it did move something


def test_without_a_scale_it_is_the_identity():
    images = uniform(2, 3, 17, 20)

    assert (ElasticDistortion(alpha=0.0)(batch_of(images), 0, 1).images - images).abs().max() < 1e-6


def test_what_happens_to_an_image_depends_on_its_id_and_not_on_its_neighbors():
    images, distort = uniform(4, 3, 16, 16), ElasticDistortion()
    whole = distort(batch_of(images), 3, 1).images

    part = distort(batch_of(images[[2, 0]], torch.tensor([2, 0])), 3, 1).images

    assert torch.equal(part, whole[[2, 0]])
    assert torch.equal(distort(batch_of(images), 3, 1).images, whole)
    assert not torch.equal(distort(batch_of(images), 3, 2).images, whole)
    assert not torch.equal(distort(batch_of(images), 4, 1).images, whole)


def test_an_image_of_one_color_stays_so_inside_and_up_to_its_border_where_that_is_repeated():
    images = torch.full((2, 3, 28, 28), 0.6)

    inside = ElasticDistortion()(batch_of(images), 0, 1).images[..., 4:-4, 4:-4]
    repeated = ElasticDistortion(padding="border")(batch_of(images), 0, 1).images

    assert (inside - 0.6).abs().max() < 1e-6 and (repeated - 0.6).abs().max() < 1e-6
    assert repeated.dtype == torch.float32 and repeated.shape == images.shape


def test_masks_go_along_and_points_are_left_out():
    images = uniform(2, 3, 28, 28)
    batch = ek.Batch(
        images=images, labels=torch.zeros(2, dtype=torch.long), ids=torch.arange(2),
        masks=images[:, :1] > 0.5, key_points=torch.zeros(2, 1, 3), boxes=torch.zeros(2, 4),
    )  # fmt: skip

    changed = ElasticDistortion()(batch, 0, 1)

    assert changed.masks.dtype == torch.bool and changed.masks.shape == (2, 1, 28, 28)
    assert changed.key_points is None and changed.boxes is None
    moves = ElasticDistortion().displacements(batch, 0, 1)
    assert 0.3 < moves[..., 6:-6, 6:-6].std() < 1.2
