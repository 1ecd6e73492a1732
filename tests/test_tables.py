"""Rows of a table in each part of the core: what explains them, what refuses them, how they are shown."""

import numpy as np
import pytest

import explainkit as ek
from explainkit.data.datasets.tables import table


def dataset():
    """Two columns, the first of which decides the class."""
    rows = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)
    return table(rows, (rows[:, 0] > 0).astype(int), features=["<b>x</b>", "y"], classes=["left", "right"])


@pytest.fixture(scope="module")
def model():
    return ek.explainer("senn", preset="table", settle_epochs=6).fit(dataset(), device="cpu", progress=False)


@pytest.mark.parametrize("name", ["cam", "ccnn", "ci-gc", "ma-cnn", "protopnet", "ra-cnn", "region-cnn"])
def test_architectures_of_places_refuse_them_in_words(name):
    with pytest.raises(ek.InputError, match="is a table of 2 columns"):
        ek.explainer(name, preset="tiny").fit(dataset(), device="cpu", progress=False)


def test_a_page_shows_their_columns_and_escapes_them(model, tmp_path):
    explanations = model.explain(next(dataset().batches("test", batch_size=2)))

    page = ek.report(explanations, tmp_path / "rows.html").read_text(encoding="utf-8")

    assert "<b>x</b>" not in page and "&lt;b&gt;x&lt;/b&gt;" in page
    assert 'class="view"' not in page


def test_they_are_drawn_and_put_in_words(model):
    explanations = model.explain(next(dataset().batches("test", batch_size=8)))

    assert {explanation.target_name for explanation in explanations} == {"left", "right"}
    for explanation in explanations:
        labels = [label.get_text() for axes in explanation.figure().axes for label in axes.get_yticklabels()]
        assert {"<b>x</b>", "y"} <= set(labels)
        assert explanation.sentence().startswith(explanation.target_name)
        assert explanation.top(1)[0].name in explanation.sentence()
        assert "<article" in explanation._repr_html_()


def test_all_three_questions_are_answered(model, tmp_path):
    batch = next(dataset().batches("test", batch_size=4))
    class_explanations = model.explain_class(dataset()).check_additivity()
    counterfactuals = model.counterfactual(batch)

    assert [item.name for item in class_explanations] == ["left", "right"]
    predictions = model.predict(counterfactuals.edits["region-swap"].images).argmax(1)
    assert (predictions == counterfactuals.targets).equal(counterfactuals.success)
    assert ek.report(class_explanations, tmp_path / "classes.html").exists()
    assert ek.report(counterfactuals, tmp_path / "counterfactuals.html").exists()
    assert counterfactuals[0].figure().axes and class_explanations[0].figure().axes


def test_a_comparison_has_them_too(model, tmp_path):
    batch = next(dataset().batches("test", batch_size=2))
    page = ek.compare([model], batch, metric_names=("residual", "units-to-95-percent")).save(
        tmp_path / "compare.html"
    )

    assert page.exists()


def test_post_hoc_methods_explain_images_and_say_so(model):
    with pytest.raises(ek.InputError, match=r"network of images.*rows of \d+ columns"):
        ek.explainer("captum/saliency", network=model.network, classes=model.classes)
