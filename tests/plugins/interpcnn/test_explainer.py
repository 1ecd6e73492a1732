"""What it says: units of classes, all three questions, settings that mean something."""

import pytest
import torch
from interpcnn_networks import explainer_of, fitted_explainer, small_network
from plugin_cases import uniform

import explainkit as ek
from explainkit.testing import tiny_dataset, tiny_images
from explainkit_interpcnn.explainer import InterpCNN, filter_places


def test_units_belong_to_their_class_alone():
    explainer = fitted_explainer()
    units, network = explainer.units, explainer.network

    assert units.kind == "filter" and units.receptive_field is None
    assert torch.equal(units.class_affinity.argmax(1), network.category)
    assert (units.class_affinity.sum(1) == 1).all() and units.class_affinity.max() == 1


def test_units_are_named_by_their_class_where_the_loss_goes_by_it():
    explainer = fitted_explainer()
    network, classes = explainer.network, explainer.classes

    assert list(explainer.units.names) == [f"filter {k}" for k in range(len(network.category))]
    drawn = ek.explainer("interp-cnn", preset="tiny", variant="target", classes=classes, network=network)
    expected = [f"filter {k} of {classes[label]}" for k, label in enumerate(network.category.tolist())]
    assert list(drawn.units.names) == expected


def test_all_three_questions_are_answered():
    explainer, batch = fitted_explainer(), tiny_dataset().test.batch(torch.arange(12))

    explanations = explainer.explain(batch).check_additivity()
    classes = explainer.explain_class([batch])
    targets = (explanations.targets + 1) % 3
    counterfactuals = explainer.counterfactual(batch.images, targets, "score-edit")

    assert "filter" in explanations[0].sentence()
    assert classes.additivity == "exact" and "filter" in next(iter(classes)).sentence()
    assert counterfactuals.edits["score-edit"].size.isfinite().any()


def test_classes_and_their_strengths_are_saved(tmp_path):
    explainer = fitted_explainer()

    loaded = ek.load(ek.save(explainer, tmp_path / "model"), device="cpu")

    for name in ("category", "class_activation", "is_class_seen", "class_share"):
        assert torch.equal(getattr(loaded.network, name), getattr(explainer.network, name))
    assert torch.equal(loaded.units.class_affinity, explainer.units.class_affinity)


def test_labels_are_not_needed_to_explain():
    explainer, batch = fitted_explainer(), tiny_dataset().test.batch(torch.arange(6))

    assert torch.equal(explainer.explain(batch.images).contributions, explainer.explain(batch).contributions)


def test_places_are_in_the_image_and_need_maps():
    explanations = explainer_of(small_network()).explain(uniform(3, 3, 32, 48))

    places = filter_places(explanations)
    has_place = ~places.isnan().any(2)

    assert torch.equal(has_place, explanations.scores > 0)
    assert (places[has_place] > 0).all() and (places[has_place] < torch.tensor([48.0, 32.0])).all()
    with pytest.raises(ek.InputError, match="maps of all units"):
        filter_places(explanations.without_maps())


def test_a_filter_that_is_switched_off_has_no_place():
    model = explainer_of(small_network()).disable_units([0])

    places = filter_places(model.explain(uniform(3, 3, 32, 48)))

    assert places[:, 0].isnan().all() and not places[:, 1:].isnan().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 1}, "fewer warm_epochs than epochs"),
        ({"beta": 0.0}, "beta of InterpCNN above 0"),
        ({"gain": -1.0}, "gain of InterpCNN above 0"),
        ({"filter_weight": -1.0}, "filter_weight of InterpCNN as 0 or more"),
        ({"freeze_after": 0.0}, r"freeze_after of InterpCNN in \(0, 1\]"),
        ({"category_momentum": 1.0}, r"category_momentum of InterpCNN in \[0, 1\)"),
        ({"head_scale": 0.0}, "head_scale of InterpCNN above 0"),
        ({"filters": 0}, "filters of InterpCNN as 1 or more"),
        ({"filters": "3"}, "filters of InterpCNN as int or None; got '3'"),
        ({"filter_weight": "0.1"}, "filter_weight of InterpCNN as float or None; got '0.1'"),
        ({"variant": ["mi"]}, "variant of InterpCNN as one of 'mi', 'target'"),
        ({"warm_epochs": -1}, "warm_epochs of InterpCNN as 0 or more"),
        ({"dropout": 1.5}, r"dropout of InterpCNN in \[0, 1\)"),
        ({"lr_scheduler": "cosine"}, "lr_scheduler of InterpCNN as one of"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ek.InputError, match=message):
        ek.explainer("interp-cnn", **settings)


def test_one_epoch_is_enough_without_a_filter_loss():
    ek.explainer("interp-cnn", epochs=1, filter_weight=0.0)
    ek.explainer("interp-cnn", epochs=1, warm_epochs=0)


def test_a_further_layer_is_the_interpretable_one_where_asked():
    explainer = ek.explainer("interp-cnn", preset="tiny", filters=12)

    explainer.fit(tiny_dataset(), device="cpu", progress=False)

    explanations = explainer.explain(tiny_images()).check_additivity()
    assert explanations.scores.shape[1] == 12 and len(explainer.network.further) == 2


def test_the_paper_is_cited_and_its_preset_is_a_further_layer_on_vgg16():
    paper = ek.explainer("interp-cnn", preset="paper")

    assert "1710.00935" in InterpCNN.card.citation and InterpCNN.card.additivity == "exact"
    assert (paper.backbone, paper.filters, paper.variant) == ("torchvision/vgg16", 512, "target")
