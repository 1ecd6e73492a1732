"""SENN on the rows of a table."""

import copy

import numpy as np
import pytest
import torch
from plugin_cases import assert_near, whole_split
from senn_networks import wine_explainer

import explainkit as ek
from explainkit.data.datasets.tables import table


def test_a_table_is_learned_and_explained_by_its_columns(tmp_path):
    model, dataset = wine_explainer()
    batch = whole_split(dataset, "test")

    model.with_instability = True
    explanations = model.explain(batch).check_additivity()

    assert model.evaluate(dataset, ("test",))["test"]["accuracy"] > 0.9
    assert explanations.units.names == dataset.features and explanations.units.kind == "feature"
    assert explanations.is_tabular
    assert any(name in explanations[0].sentence() for name in dataset.features)
    train = whole_split(dataset).images
    standard = (batch.images - train.mean(0)) / train.std(0)
    scale = model.network.grounds.std
    assert_near(explanations.scores, standard / scale, 1e-3)  # columns lie far from 0 beside their deviation
    torch.testing.assert_close(scale, torch.ones(13), rtol=1e-3, atol=0)
    ek.report([explanations[:2]], tmp_path / "why.html")
    page = (tmp_path / "why.html").read_text()
    assert explanations.units.names[explanations[0].top(1)[0].unit] in page and "nstability" in page
    texts = [label.get_text() for axes in explanations[0].figure().axes for label in axes.get_yticklabels()]
    assert set(texts) & set(dataset.features)


def test_a_table_comes_back_from_its_folder(tmp_path):
    model, dataset = wine_explainer()
    rows = whole_split(dataset, "test").images

    loaded = ek.load(ek.save(model, tmp_path / "model"))

    assert loaded.input_spec.is_vector and loaded.units.names == dataset.features
    explanations = loaded.explain(rows.numpy())
    assert torch.equal(explanations.contributions, model.explain(rows).contributions)
    path = explanations.save(tmp_path / "explanations.safetensors")
    sentences = [explanation.sentence() for explanation in explanations]
    assert [explanation.sentence() for explanation in ek.Explanations.load(path)] == sentences


def test_a_bound_network_of_a_table_explains_rows():
    model, dataset = wine_explainer()

    bound = ek.explainer("senn", network=model.network, classes=dataset.classes)

    rows = whole_split(dataset, "test").images
    assert bound.size == (13,) and bound.units.names[0] == "column 1"
    assert torch.equal(bound.explain(rows).contributions, model.explain(rows).contributions)


def test_the_scale_of_a_column_is_no_matter():
    model, dataset = wine_explainer()
    scaled = copy.deepcopy(model.network)
    factor = torch.logspace(-6, 6, 13)
    scaled.preprocess.mean.mul_(factor)
    scaled.preprocess.std.mul_(factor)
    rows = whole_split(dataset, "test").images

    assert_near(scaled(rows * factor), model.network(rows), 1e-3)


def test_a_column_that_never_changes_is_no_division_by_zero():
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    rows[:, 1] = 7
    dataset = table(rows, (rows[:, 0] > 0).astype(int))
    model = ek.explainer("senn", preset="table", settle_epochs=2).fit(dataset, device="cpu", progress=False)

    explanations = model.explain(torch.tensor([[1.0, 9.0, 0.0]])).check_additivity()

    assert explanations.scores[0, 1] == pytest.approx(2) and explanations.contributions.abs().max() < 100


@pytest.mark.parametrize(
    "rows", [torch.rand(2, 12), torch.rand(13), torch.ones(2, 13).long(), torch.full((2, 13), torch.nan)]
)
def test_rows_of_another_table_are_refused_in_words(rows):
    with pytest.raises(ek.InputError, match=r"Expected (float|finite) rows"):
        wine_explainer()[0].explain(rows)


def test_architectures_of_image_grids_refuse_tables():
    with pytest.raises(ek.InputError, match="'senn', take tables"):
        ek.explainer("cam").fit(wine_explainer()[1])
