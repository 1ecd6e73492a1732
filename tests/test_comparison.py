"""Side by side: the same images, the same classes."""

import json

import pytest
import torch

import explainkit as ek
from explainkit.testing import fitted_example, tiny_dataset


def beside(*methods):
    model = fitted_example("cam")
    others = [ek.explainer(f"captum/{m}", network=model.network, classes=model.classes) for m in methods]
    return model, others


def test_all_explain_the_classes_that_the_first_predicts():
    model, others = beside("saliency", "integrated-gradients")
    batch = tiny_dataset().test.batch(torch.arange(4))

    compared = ek.compare([model, *others], batch)

    explanations = compared.explanations
    assert list(explanations) == ["cam", "captum/saliency", "captum/integrated-gradients"]
    assert all(torch.equal(each.targets, explanations["cam"].targets) for each in explanations.values())


def test_one_that_fails_is_named_and_costs_the_others_nothing(tmp_path):
    model, others = beside("saliency")
    batch = tiny_dataset().test.batch(torch.arange(2))

    class Failing(type(others[0])):
        def explain(self, *args, **kwargs):
            raise ek.InputError("it would not <b>")

    failing = Failing.from_network(model.network, classes=model.classes)
    compared = ek.compare([model, failing], batch)
    page = compared.save(tmp_path / "page.html").read_text()

    assert list(compared.explanations) == ["cam"]
    assert "it would not &lt;b&gt;" in page


def test_other_classes_are_refused():
    model, _ = beside()
    turned = ek.explainer("captum/saliency", network=model.network, classes=model.classes[::-1])

    with pytest.raises(ek.InputError, match="same classes"):
        ek.compare([model, turned], tiny_dataset().test.batch(torch.arange(2)))


def test_pages_of_different_images_are_refused(tmp_path):
    explanations = fitted_example("cam").explain(tiny_dataset().test.batch(torch.arange(4)))

    with pytest.raises(ek.InputError, match="same images"):
        ek.report([explanations[:2], explanations[2:]], tmp_path / "page.html")


def test_the_table_has_every_explainer_and_trivial_rows_and_json_has_the_sums():
    model, others = beside("saliency")
    batch = tiny_dataset().test.batch(torch.arange(3))

    compared = ek.compare([model, *others], batch, metric_names=["residual", "pointing", "forward-passes"])
    facts = json.loads(compared.to_json())
    item = facts["explanations"]["cam"][0]
    total = (
        item["base"]
        + sum(unit["contribution"] for unit in item["evidence"])
        + item["others"]
        + item["residual"]
    )

    assert "captum/saliency" in compared.table()
    assert "no part masks" in compared.table()
    assert total == pytest.approx(item["explained_output"], abs=1e-4)
