"""What is drawn: the evidence, and the shares that training held in place."""

import torch
from cigc_networks import explainer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from plugin_cases import uniform


def texts(figure):
    FigureCanvasAgg(figure).draw()
    return " | ".join(
        text.get_text() for axes in figure.findobj(lambda item: hasattr(item, "texts"))
        for text in [*getattr(axes, "texts", []), getattr(axes, "title", None)] if text is not None
    )  # fmt: skip


def test_attention_is_drawn_cell_by_cell_beside_the_strongest_filters():
    drawn = texts(explainer().explain(uniform(1, 3, 32, 32), 1)[0].figure())

    assert "attention, held in place by training" in drawn and "filter" in drawn
    assert "among other images" not in drawn


def test_a_certificate_is_said_where_there_is_one():
    from attrs import evolve

    explanations = explainer().explain(uniform(1, 3, 32, 32), 1)
    facts = {"map overlap": torch.tensor([0.9]), "map inside": torch.tensor([0.95])}

    drawn = texts(evolve(explanations, diagnostics=facts)[0].figure())

    assert "among other images: 95% stays here, overlap 90%" in drawn


def test_a_contrast_is_not_said_to_be_held_in_place_nor_certified():
    from attrs import evolve

    explanations = explainer().explain(uniform(1, 3, 32, 32), 1)
    facts = {"map overlap": torch.tensor([0.9]), "map inside": torch.tensor([0.95])}
    contrast = evolve(explanations.contrast(0), diagnostics=facts)

    drawn = texts(contrast[0].figure())

    assert f"speaks for this class over {explanations.classes[0]}" in drawn
    assert "held in place" not in drawn and "among other images" not in drawn


def test_attention_that_was_never_held_in_place_is_not_said_to_be():
    model = explainer()
    model.consistency = 0.0

    drawn = texts(model.explain(uniform(1, 3, 32, 32), 1)[0].figure())

    assert "attention" in drawn and "held in place" not in drawn


def test_explanations_without_maps_and_dead_ones_are_drawn():
    model, images = explainer(), uniform(1, 3, 32, 32)
    explanations = model.explain(images, 1)
    with torch.no_grad():
        model.network.head.weight.fill_(-1)

    assert "nothing speaks for this class" in texts(model.explain(images, 1)[0].figure())
    assert "no maps were kept" in texts(explanations.without_maps()[0].figure())
