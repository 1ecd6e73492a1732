"""What each phase of training changes, and where centers begin."""

from itertools import pairwise

import pytest
import torch
from plugin_cases import assert_near, networks_by_phase, uniform
from regioncnn_networks import fitted, small_network

import explainkit as ek
from explainkit.testing import tiny_dataset
from explainkit.training.phases import optimizer
from explainkit_regioncnn.dictionary import border_masses, cluster_centers, k_means, measure_border


def changed_children(before, after):
    """The children, and parameters, of which a parameter is not what it was, to the bit."""
    parameters = dict(after.named_parameters())
    return {
        name.partition(".")[0]
        for name, value in before.named_parameters()
        if not torch.equal(value, parameters[name])
    }


def test_the_dictionary_begins_at_clusters_and_learns_after_them():
    networks = list(networks_by_phase(ek.explainer("region-cnn", preset="tiny", epochs=1), tiny_dataset()))

    moved = [(name, changed_children(before, after)) for (_, before), (name, after) in pairwise(networks)]

    rest = {"backbone", "transform", "attend", "norm", "head"}
    assert moved == [("warm", rest | {"dictionary"}), ("group", rest | {"dictionary", "smoothing"})]
    warm = networks[1][1].eval()
    other = small_network(classes=3, regions=4, head_channels=32)
    other.load_state_dict(warm.state_dict())
    with torch.no_grad():
        cluster_centers(other, tiny_dataset(), recolorings=4)
    assert_near(other.dictionary, warm.dictionary)
    assert networks[1][1].border_density.isnan().all() and networks[2][1].border_density.isfinite().all()


def test_without_a_warm_phase_all_learn_from_the_first_step():
    (phase,) = ek.explainer("region-cnn", preset="tiny", warm_epochs=0).phases()

    assert {"dictionary", "smoothing"} <= set(phase.lr) and phase.loss.keywords["prior_weight"] == 0.5


def test_smoothing_has_a_rate_of_its_own_and_the_dictionary_no_decay():
    model = ek.explainer("region-cnn", preset="tiny", lr=1e-3, backbone_lr=1e-4, weight_decay=0.1)
    network = small_network()

    groups = optimizer(network, model.phases()[1]).param_groups

    rate = {id(value): group["lr"] for group in groups for value in group["params"]}
    decay = {id(value): group["weight_decay"] for group in groups for value in group["params"]}
    assert rate[id(network.smoothing)] == pytest.approx(1e-2) and rate[id(network.dictionary)] == 1e-3
    assert rate[id(network.backbone.stem[0].weight)] == 1e-4
    assert (
        decay[id(network.dictionary)] == decay[id(network.smoothing)] == 0
        and decay[id(network.head.weight)] == 0.1
    )


def test_the_settings_of_the_paper_have_one_phase_of_the_published_rates():
    model = ek.explainer("region-cnn", preset="paper")

    (phase,) = model.phases()

    assert (phase.epochs, phase.batch_size, phase.optimizer, phase.lr_scheduler) == (150, 16, "sgd", "cosine")
    assert phase.lr["head"] == phase.lr["dictionary"] == 1e-2 and phase.lr["backbone"] == 5e-4
    assert phase.loss.keywords["prior"] == (1.0, 0.001) and phase.loss.keywords["prior_weight"] == 0.5
    assert phase.loss.keywords["recoloring_weight"] == 0.0 and phase.loss.keywords["blur_radius"] == 2
    assert model.attention_relu and not model.scaled


def test_it_learns_and_the_prior_is_met():
    model = fitted()

    assert model.evaluate(tiny_dataset(), ["test"])["test"]["accuracy"] >= 0.9
    group = [epoch.train_losses for epoch in model.history if epoch.phase == "group"]
    assert group[-1]["occurrence"] < 0.5 * group[0]["occurrence"]
    assert set(group[0]) == {"cross_entropy", "occurrence", "recoloring"}


def test_k_means_ends_where_each_center_is_the_mean_of_its_points():
    points = torch.cat([uniform(40, 3, seed=seed, dtype=torch.float64) + 3 * seed for seed in range(4)])

    means = k_means(points, 4)

    nearest = torch.cdist(points, means).argmin(1)
    for k in range(4):
        assert_near(means[k], points[nearest == k].mean(0), 1e-12)
    assert sorted(nearest.unique(return_counts=True)[1].tolist()) == [40] * 4
    assert torch.equal(k_means(points, 4), means)


def test_k_means_of_fewer_points_than_centers_is_finite():
    assert k_means(torch.ones(2, 3), 4).isfinite().all()


def test_border_density_is_the_literal_share_on_the_frame_over_an_even_one():
    shares = uniform(2, 3, 4, 5, dtype=torch.float64).softmax(1)

    on_frame, even = border_masses(shares)

    for n in range(2):
        for k in range(3):
            total = sum(shares[n, k, y, x] for y in range(4) for x in range(5) if y in (0, 3) or x in (0, 4))
            assert_near(on_frame[n, k], total, 1e-12)
            assert_near(even[n, k], shares[n, k].sum() * 14 / 20, 1e-12)


def test_regions_at_the_border_of_training_images_are_called_background():
    network = small_network(classes=3)
    model = ek.explainer("region-cnn", network=network, classes=tiny_dataset().classes, size=(32, 32))
    assert not any("background" in name for name in model.units.names)  # not measured yet

    with torch.no_grad():
        measure_border(network, tiny_dataset())
    names = model.describe_units(network).names

    images = tiny_dataset().train.batch(torch.arange(96)).images
    masses = border_masses(network.outputs(images).shares).sum(1)
    density = masses[0] / masses[1]
    assert_near(network.border_density, density.detach())
    assert [name.endswith("(background)") for name in names] == (density >= 0.5).tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regions": 1}, "regions of Region-CNN as 2 or more; got 1"),
        ({"prior": (1.0,)}, "alpha and beta"),
        ({"prior": (0.0, 1.0)}, "above 0"),
        ({"prior_weight": -1.0}, "prior_weight"),
        ({"recolor_every": 0}, "recolor_every"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"reduction": 300}, "reduction"),
        ({"blur_radius": -1}, "blur_radius"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ek.InputError, match=message):
        ek.explainer("region-cnn", **settings)
