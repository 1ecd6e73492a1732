"""Rows of a table in each part of the core: what explains them, what refuses them, how they are shown."""

import numpy as np
import pytest

import explainkit as ek
from explainkit.data.table import table


def data():
    """Two columns, the first of which tells the class."""
    rows = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)
    return table(rows, (rows[:, 0] > 0).astype(int), features=["<b>x</b>", "y"], classes=["left", "right"])


@pytest.fixture(scope="module")
def model():
    return ek.explainer("senn", preset="table", settle=6).fit(data(), device="cpu", progress=False)


@pytest.mark.parametrize("name", ["cam", "protopnet", "ccnn", "ra-cnn"])
def test_architectures_of_places_refuse_them_in_words(name):
    with pytest.raises(ek.InputError, match="is a table of 2 columns"):
        ek.explainer(name, preset="tiny").fit(data(), device="cpu", progress=False)


def test_a_page_shows_their_columns_and_escapes_them(model, tmp_path):
    told = model.explain(next(data().batches("test", size=2)))

    page = ek.report(told, tmp_path / "rows.html").read_text(encoding="utf-8")

    assert "<b>x</b>" not in page and "&lt;b&gt;x&lt;/b&gt;" in page
    assert 'class="view"' not in page


def test_they_are_drawn_and_put_in_words(model):
    told = model.explain(next(data().batches("test", size=2)))

    assert told[0].figure().axes and "right" in told[0].sentence() + told[1].sentence() + "left, right"
    assert "<article" in told[0]._repr_html_()


def test_all_three_questions_are_answered(model, tmp_path):
    batch = next(data().batches("test", size=4))
    classes, changes = model.explain_class(data()).check(), model.counterfactual(batch)

    assert [item.name for item in classes] == ["left", "right"]
    assert (model.predict(changes.realised.images).argmax(1) == changes.targets).equal(changes.success)
    assert ek.report(classes, tmp_path / "classes.html").exists()
    assert ek.report(changes, tmp_path / "changes.html").exists()
    assert changes[0].figure().axes and classes[0].figure().axes


def test_a_comparison_has_them_too(model, tmp_path):
    batch = next(data().batches("test", size=2))
    page = ek.compare([model], batch, measures=("residual", "units-to-95")).save(tmp_path / "compare.html")

    assert page.exists()


def test_post_hoc_methods_explain_images_and_say_so(model):
    method = ek.explainer("captum/saliency", network=model.network, classes=model.classes)

    with pytest.raises(ek.InputError, match="Expected float images"):
        method.explain(next(data().batches("test", size=2)))
