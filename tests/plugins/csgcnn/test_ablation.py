"""Silencing a class's filters takes that class, and the numbers are those of the network with them off."""

import copy

import pytest
import torch
from csgcnn_networks import explainer, oracle_dataset, oracle_explainer
from plugin_cases import assert_near, uniform

import explainkit as ek
from explainkit.testing import fitted_example, tiny_dataset, tiny_images
from explainkit_csgcnn.ablation import ablate_classes, ablated_logits

METHOD = "csg-cnn/class-ablation"


def test_with_an_oracle_a_silenced_class_is_right_by_its_bias_alone_and_the_others_always():
    table = ablate_classes(oracle_explainer((0.0, 0.1, 0.2, 0.1)), oracle_dataset())

    assert table.num_units.tolist() == [3] * 4 and table.images.tolist() == [10] * 4
    assert table.own_before.tolist() == table.others_before.tolist() == [1.0] * 4
    assert table.own_after.tolist() == [0.0, 0.0, 1.0, 0.0]  # class 2 has the largest bias
    assert table.others_after.tolist() == [1.0] * 4
    assert_near(table.true_drop, torch.full((4,), 3.0, dtype=torch.double))
    assert "mean" in table.table() and "class 3" in table.table()


@pytest.mark.parametrize("name", ["csg-cnn", "protopnet"])
def test_the_table_is_that_of_networks_with_units_switched_off(name):
    model, dataset = fitted_example(name), tiny_dataset()
    batch = dataset.test.batch(torch.arange(24))
    before = model.predict(batch.images)

    table = ablate_classes(model, dataset, batch_size=7)

    affinity = model.units.class_affinity
    for c in range(3):
        silenced = copy.deepcopy(model).disable_units((affinity[:, c] > 0.5).nonzero()[:, 0])
        after = silenced.predict(batch.images)
        is_own, is_right = batch.labels == c, after.argmax(1) == batch.labels
        assert table.own_after[c].item() == pytest.approx(is_right[is_own].double().mean().item())
        assert table.others_after[c].item() == pytest.approx(is_right[~is_own].double().mean().item())
        drop = (before - after)[is_own, c].double().mean()
        assert_near(table.true_drop[c], drop, scale=before)
        assert_near(table.predicted_drop[c], drop, scale=before)  # the sum is exact


def test_ablated_logits_are_the_loop_over_classes():
    explanations = explainer(torch.float64).explain(uniform(3, 3, 32, 32))

    logits = ablated_logits(explanations)

    for c in range(4):
        off = (explanations.units.class_affinity[:, c] > 0.5).nonzero()[:, 0].tolist()
        assert_near(logits[:, c], explanations.intervene(dict.fromkeys(off, "off")).logits, 1e-10)


def test_a_counterfactual_silences_the_predicted_class_and_no_other_filter():
    model = oracle_explainer((0.3, 0.2, 0.1, 0.0))
    images = oracle_dataset().test.batch(torch.tensor([2, 1])).images

    counterfactuals = model.counterfactual(images, [0, 3], method=METHOD)

    edits = counterfactuals.edits[METHOD]
    assert edits.feasible.tolist() == [True, False]  # class 0 is next to win, and not class 3
    silenced = (edits.before[0] != edits.after[0]).nonzero()[:, 0]
    assert silenced.tolist() == [2, 6, 10] and (edits.after[0, silenced] == 0).all()
    assert edits.logits[0].argmax() == 0 and edits.verified_by == "algebra"
    assert "filter 2 of class 2 fell from 1.0 to 0.0" in counterfactuals[0].sentence()


def test_explainkit_counterfactual_methods_have_class_ablation_where_units_belong_to_classes():
    for name in ("csg-cnn", "protopnet"):
        model = fitted_example(name)
        assert METHOD in model.counterfactual_methods()
        counterfactuals = model.counterfactual(tiny_images(), method=METHOD)
        logits = copy.deepcopy(model)
        n = int(counterfactuals.edits[METHOD].feasible.nonzero()[0, 0])
        changed = (counterfactuals.edits[METHOD].before != counterfactuals.edits[METHOD].after)[n]
        logits.disable_units(changed.nonzero()[:, 0])
        assert_near(logits.predict(tiny_images()[n : n + 1])[0], counterfactuals.edits[METHOD].logits[n])
    assert METHOD not in fitted_example("cam").counterfactual_methods()


def test_an_ablation_runs_only_where_it_is_named():
    model = fitted_example("csg-cnn")

    assert tuple(model.counterfactual(tiny_images()).edits) == ("score-edit", "region-swap")
    assert tuple(model.counterfactual(tiny_images(), method=METHOD).edits) == (METHOD,)


@pytest.mark.parametrize("affinity", [-0.1, 1, True, "half"])
def test_an_affinity_out_of_range_is_refused(affinity):
    with pytest.raises(ek.InputError, match="affinity"):
        explainer().counterfactual(uniform(1, 3, 32, 32), method=METHOD, affinity=affinity)
