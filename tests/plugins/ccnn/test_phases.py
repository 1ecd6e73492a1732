"""What each stage of training changes."""

from itertools import pairwise

import torch
from ccnn_networks import captions_of, tiny_explainer
from plugin_cases import networks_by_phase

import explainkit as ek
from explainkit.data.captions.phrases import phrasebook
from explainkit.testing import tiny_dataset


def changed_children(before, after):
    """The children of which a parameter is not what it was, to the bit."""
    parameters = dict(after.named_parameters())
    return {
        name.partition(".")[0]
        for name, value in before.named_parameters()
        if not torch.equal(value, parameters[name])
    }


def test_each_stage_moves_what_it_names_and_nothing_else():
    networks = list(networks_by_phase(tiny_explainer(first_epochs=1), tiny_dataset()))

    moved = [(name, changed_children(before, after)) for (_, before), (name, after) in pairwise(networks)]

    assert moved == [
        ("filters", {"concepts", "visual", "textual"}),
        ("guided", {"backbone", "concepts", "visual", "textual"}),
        ("last", {"head"}),
    ]
    for (_, before), (name, after) in pairwise(networks):
        buffers = dict(after.named_buffers())
        for key, value in before.named_buffers():
            is_fixed = name != "guided" or not key.startswith("backbone")
            assert not is_fixed or torch.equal(value, buffers[key]), (name, key)


def test_without_guidance_the_projections_never_move():
    networks = list(networks_by_phase(tiny_explainer(concept_weight=0.0), tiny_dataset()))

    assert changed_children(networks[0][1], networks[-1][1]) == {"backbone", "concepts", "head"}


def test_the_settings_of_the_paper_are_its_three_stages():
    model = ek.explainer("ccnn", preset="paper")
    model._phrasebook = phrasebook(captions_of(tiny_dataset()), tiny_dataset().train.labels, 3)

    stages = [(phase.name, phase.epochs, set(phase.lr.values())) for phase in model.phases()]

    assert stages == [("filters", 20, {1e-3}), ("guided", 50, {1e-4}), ("last", 20, {1e-4})]
    assert model.init_head_weight == 0.1 and model.margin == 1.0 and model.counter_margin == 0.5
    assert (model.concept_weight, model.embedding_dim, model.dropout) == (0.4, 24, 0.5)
