"""The terms of the loss, against loops."""

import pytest
import torch
from plugin_cases import alone
from senn_jacobians import gradients, literal_penalty
from senn_networks import doubles, image_network, table_network
from torch.nn import functional as F

from explainkit.data.types import Batch
from explainkit.training.steps import Step
from explainkit_senn.losses import reconstruction, senn_loss, sparsity


def test_every_term_is_a_mean_over_the_batch():
    network = image_network(robustness_fraction=1.0).train()
    batch = Batch(images=doubles(3, 3, 16, 16), labels=torch.tensor([0, 1, 2]), ids=torch.arange(3))
    twice = Batch(images=batch.images.repeat(2, 1, 1, 1), labels=batch.labels.repeat(2), ids=torch.arange(6))

    once, repeated = (
        senn_loss(network, batch, alone(batch), exact_jacobian=True, label_smoothing=0.1)
        for batch in (batch, twice)
    )

    assert set(once) == {"cross_entropy", "sparsity", "reconstruction", "robustness"}
    for name, value in once.items():
        torch.testing.assert_close(repeated[name], value, rtol=1e-10, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_terms_are_those_of_loops(channels):
    network, images = image_network(channels=channels).train(), doubles(3, 3, 16, 16)
    labels = torch.tensor([2, 0, 1])

    terms = senn_loss(
        network, Batch(images=images, labels=labels, ids=labels), Step(batch_size=3), robustness_weight=0.7,
        reconstruction_weight=2.0, sparsity_weight=0.3, exact_jacobian=True,
    )  # fmt: skip

    outputs = network.outputs(images)
    errors, sums, costs = [], [], []
    for n in range(3):
        image = images[n] if channels == 3 else images[n].mean(0, keepdim=True)
        errors += (outputs.reconstruction[n] - image).flatten().square().tolist()
        sums.append(sum(abs(value) for value in outputs.concepts[n].tolist()))
        costs.append(-outputs.logits[n].log_softmax(0)[labels[n]].item())
    assert terms["reconstruction"].item() == pytest.approx(2 * sum(errors) / len(errors))
    assert terms["sparsity"].item() == pytest.approx(0.3 * sum(sums) / 3)
    assert terms["cross_entropy"].item() == pytest.approx(sum(costs) / 3)
    assert terms["robustness"].item() == pytest.approx(0.7 * literal_penalty(network, images).mean().item())


def test_the_conceptizer_is_trained_also_where_weights_are_held_stable():
    network, images = image_network().train(), doubles(3, 3, 16, 16)

    terms = senn_loss(
        network, Batch(images=images, labels=torch.arange(3), ids=torch.arange(3)), Step(batch_size=3)
    )
    slopes = gradients(network, sum(terms.values()))

    assert terms["robustness"] > 0
    for name in ("conceptizer.upwards.0.weight", "conceptizer.draw.weight", "conceptizer.downwards.0.weight"):
        assert slopes[name].abs().max() > 0
    outputs = network.outputs(images)
    slopes = gradients(network, reconstruction(network, outputs, images))
    assert slopes["conceptizer.upwards.0.weight"].abs().max() > 0 and outputs.tracked_inputs is not None
    assert gradients(network, sparsity(network.outputs(images)))["conceptizer.read.weight"].abs().max() > 0


def test_a_table_has_nothing_to_be_drawn():
    network = table_network().train()

    terms = senn_loss(
        network,
        Batch(images=doubles(4, 5), labels=torch.zeros(4).long(), ids=torch.arange(4)),
        Step(batch_size=4),
    )

    assert set(terms) == {"cross_entropy", "sparsity", "robustness"}


def test_the_cross_entropy_is_of_logits():
    network, labels = table_network(), torch.tensor([0, 1, 2, 0])
    batch = Batch(images=doubles(4, 5), labels=labels, ids=torch.arange(4))

    cross_entropy = senn_loss(network.train(), batch, alone(batch))["cross_entropy"]

    assert cross_entropy.item() == pytest.approx(F.cross_entropy(network(batch.images), batch.labels).item())
    assert network(batch.images).exp().sum(1).sub(1).abs().min() > 1e-3  # no log-probabilities
