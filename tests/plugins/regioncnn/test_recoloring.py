"""Images in other colors: which, how, and what regions pay for going by colors."""

import math

import torch
from plugin_cases import alone, assert_near, uniform
from regioncnn_networks import small_network

import explainkit as ek
from explainkit_regioncnn.grouping import assignment
from explainkit_regioncnn.losses import region_loss
from explainkit_regioncnn.recoloring import disagreement, is_recolored, recolored


def test_an_image_is_recolored_by_its_id_and_the_epoch_alone():
    images, ids = uniform(8, 3, 4, 4), torch.arange(8) + 100

    found = recolored(images, ids, 3)

    assert torch.equal(recolored(images[[5, 2]], ids[[5, 2]], 3), found[[5, 2]])
    assert not torch.equal(recolored(images, ids, 4), found)


def test_channels_are_permuted_and_inverted_and_never_all_as_they_were():
    image = torch.tensor([0.1, 0.25, 0.4]).view(1, 3, 1, 1)
    ids = torch.arange(2000)

    found = recolored(image.expand(2000, -1, -1, -1), ids, 1)[..., 0, 0]

    kinds = {tuple(round(value, 4) for value in row) for row in found.tolist()}
    assert len(kinds) == 47 and (0.1, 0.25, 0.4) not in kinds
    for row in kinds:
        assert sorted(min(value, round(1 - value, 4)) for value in row) == [0.1, 0.25, 0.4]


def test_each_image_is_recolored_once_in_so_many_epochs():
    ids = torch.arange(30)

    count = sum(is_recolored(ids, epoch, 4).long() for epoch in range(1, 5))

    assert torch.equal(count, torch.ones(30, dtype=torch.long))


def test_disagreement_is_the_literal_log_probability_of_the_same_region():
    one, other = (uniform(2, 3, 2, 4, seed=seed, dtype=torch.float64).softmax(1) for seed in (0, 1))

    found = disagreement(one, other)

    for n in range(2):
        total = 0.0
        for y in range(2):
            for x in range(4):
                total -= math.log(sum(float(one[n, k, y, x] * other[n, k, y, x]) for k in range(3)))
        assert_near(found[n], torch.tensor(total / 8, dtype=torch.float64), 1e-12)
    certain = torch.nn.functional.one_hot(torch.randint(3, (2, 5, 5)), 3).movedim(3, 1).double()
    assert not disagreement(certain, certain).any()


def test_the_term_of_the_loss_is_the_mean_over_recolored_images():
    network, ids = small_network(), torch.tensor([3, 8, 4, 11, 12, 9])
    batch = ek.Batch(images=uniform(6, 3, 32, 32), labels=torch.zeros(6, dtype=torch.long), ids=ids)

    terms = region_loss(network, batch, alone(batch), recoloring_weight=0.7, recolor_every=4)

    total = 0.0
    for n, image in enumerate(batch.images):
        if (int(ids[n]) + 1) % 4:  # the first epoch
            continue
        pair = torch.stack([image, recolored(image[None], ids[n : n + 1], 1)[0]])
        shares = assignment(network.cell_features(pair), network.dictionary, network.beta)
        total = total + disagreement(shares[:1], shares[1:])[0]
    assert_near(terms["recoloring"], 0.7 * total * 4 / 6)


def test_a_batch_without_a_recolored_image_pays_nothing():
    network = small_network()
    batch = ek.Batch(
        images=uniform(2, 3, 32, 32), labels=torch.zeros(2, dtype=torch.long), ids=torch.tensor([0, 1])
    )

    terms = region_loss(network, batch, alone(batch), recoloring_weight=1.0, recolor_every=4)

    assert terms["recoloring"] == 0
