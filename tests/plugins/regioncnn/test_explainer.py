"""What Region-CNN says of images and classes, in words and numbers."""

import torch
from plugin_cases import assert_near, uniform
from regioncnn_networks import explainer, fitted

from explainkit.testing import tiny_dataset, tiny_images


def test_units_are_regions_and_say_where_their_cells_look():
    model = explainer()

    units = model.units
    assert units.kind == "region" and units.pooling == "coupled" and units.names[2] == "region 2"
    assert units.receptive_field == model.network.backbone.field


def test_diagnostics_are_the_spread_of_attention_and_what_the_background_has():
    model, images = explainer(), uniform(3, 3, 32, 32)
    model.network.border_density.copy_(torch.tensor([0.1, 0.9, 0.4, 1.2, 0.0]))
    model.disable_units(4)

    explanations = model.explain(images)

    attention = explanations.scores
    entropy = -sum(attention[:, k] * attention[:, k].log() for k in range(4))  # the last has no attention
    assert_near(explanations.diagnostics["regions attended to"], entropy.exp())
    assert_near(explanations.diagnostics["attention to the background"], attention[:, 1] + attention[:, 3])


def test_a_sentence_names_regions_and_a_class_is_a_mean():
    model = fitted()

    explanations = model.explain(tiny_images())
    classes = model.explain_class(tiny_dataset()).check_additivity()

    assert "region" in explanations[0].sentence() and "region" in classes["square 1"].sentence()
    batch = tiny_dataset().train.batch(torch.arange(96))
    told = model.explain(batch, batch.labels)
    mean = told.contributions[batch.labels == 1].mean(0)
    assert_near(classes["square 1"].contributions, mean)


def test_contrasts_are_differences_of_evidence_with_the_same_attention():
    explanations = explainer().explain(uniform(3, 3, 32, 32), 1)

    contrast = explanations.contrast(2)

    decomposition, rows = explanations.decomposition, torch.arange(3)
    one, two = (decomposition.weights_at(rows, torch.full((3,), label)) for label in (1, 2))
    assert_near(contrast.contributions, explanations.scores * (one - two), scale=one)
