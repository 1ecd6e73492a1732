"""The convex fit of the last layer."""

import pytest
import torch
from plugin_cases import FLOAT32, assert_near, uniform
from protopnet_networks import fitted_network
from torch.nn import functional as F

from explainkit.testing import tiny_dataset
from explainkit_protopnet.head import all_scores, fit_head, gradient, objective
from explainkit_protopnet.losses import off_class_l1


def problem(images=400, classes=4, prototypes_per_class=3, seed=0):
    """Scores that tell classes apart, but not quite."""
    owner = torch.arange(classes).repeat_interleave(prototypes_per_class)
    labels = torch.arange(images) % classes
    scores = uniform(images, len(owner), seed=seed) + 0.4 * (owner == labels[:, None])
    own = owner[:, None] == torch.arange(classes)
    return scores, labels, own, torch.where(own.T, 1.0, -0.5)


@pytest.mark.parametrize("penalty", [1e-3, 1e-2])
def test_the_last_layer_is_the_best_there_is(penalty):
    scores, labels, own, start = (
        value.double() if value.is_floating_point() else value for value in problem()
    )

    fit = fit_head(scores, labels, own, start, penalty, tolerance=1e-5, steps=20000)

    slope = gradient(fit.weight, scores, F.one_hot(labels).double())
    zero = fit.weight == 0
    assert fit.violation <= 1e-5 and (zero & ~own.T).sum() > 0 and not zero[own.T].any()
    assert slope[own.T].abs().max() <= 1e-4
    assert (slope[zero & ~own.T].abs() <= penalty + 1e-4).all()
    used = ~zero & ~own.T
    torch.testing.assert_close(slope[used], -penalty * fit.weight[used].sign(), rtol=0, atol=1e-4)


def test_no_gradient_descent_does_better():
    scores, labels, own, start = problem()
    weight = start.clone().requires_grad_()
    adam = torch.optim.Adam([weight], 1e-2)
    for _ in range(600):
        adam.zero_grad()
        (F.cross_entropy(scores @ weight.T, labels) + 1e-3 * off_class_l1(weight, own)).backward()
        adam.step()

    fit = fit_head(scores, labels, own, start, 1e-3)

    descended = objective(weight.detach(), scores, labels, own.T, 1e-3)
    assert fit.objective <= descended * (1 + FLOAT32)
    assert fit.objective == pytest.approx(
        (F.cross_entropy(scores @ fit.weight.T, labels) + 1e-3 * off_class_l1(fit.weight, own)).item(),
        rel=FLOAT32,
    )
    slope = torch.autograd.grad(F.cross_entropy(scores @ weight.T, labels), weight)[0]
    assert_near(gradient(weight.detach(), scores, F.one_hot(labels).float()), slope, scale=scores.mean(0))


def test_cached_scores_give_the_same_fit_as_scores_computed_again():
    network, dataset = fitted_network(), tiny_dataset()
    with torch.no_grad():
        cached, labels = all_scores(network, dataset)
        anew = torch.cat([network.decompose(batch.images).scores for batch in dataset.batches("train", 9)])

        fit = fit_head(cached, labels, network.own, network.head.weight, 1e-3, steps=50)
        expected = fit_head(anew, labels, network.own, network.head.weight, 1e-3, steps=50)

    assert_near(cached, anew)
    assert_near(fit.weight, expected.weight, 1e-3)  # each of 50 steps adds its rounding
