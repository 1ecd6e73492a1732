"""Drawings show both maps, the split and the gate."""

import torch
from csgcnn_networks import explainer, small_network
from plugin_cases import uniform

import explainkit as ek
from explainkit_csgcnn.evidence import purity_sentence


def texts_of(figure):
    figure.canvas.draw()
    texts = [text.get_text() for text in figure.texts]
    for axes in figure.findobj(lambda artist: hasattr(artist, "get_yticklabels")):
        texts += [axes.get_title(), *(text.get_text() for text in axes.texts + axes.get_yticklabels())]
    if figure._supxlabel is not None:
        texts.append(figure._supxlabel.get_text())
    return " ".join(texts).replace("\n", " ")


def test_a_drawing_shows_the_gated_map_the_parts_and_the_classes_of_the_strongest_filters():
    explanation = explainer().explain(uniform(2, 3, 32, 32))[0]

    text = texts_of(explanation.figure())

    assert "of its own filters alone" in text and "its own filters" in text and "purity" in text
    assert f"filter {explanation.top(1)[0].unit}" in text and all(
        name in text for name in ["class 0", "class 3"]
    )
    assert purity_sentence(explanation) in text


def test_explanations_with_few_maps_contrasts_and_many_classes_are_drawn():
    explanations = explainer().explain(uniform(2, 3, 32, 32))

    assert "not all maps were kept" in texts_of(explanations.keep_maps(3)[0].figure())
    contrast = explanations.contrast(2)[0]
    text = texts_of(contrast.figure())
    assert "margin" in text and "of each class's own filters alone" in text and "its own filters" not in text
    assert purity_sentence(contrast) in text
    many = ek.explainer("csg-cnn", network=small_network(classes=40), size=(32, 32)).explain(
        uniform(1, 3, 32, 32)
    )[0]
    assert f"{many.target_name}" in texts_of(many.figure())
    dark = explainer()
    with torch.no_grad():
        dark.network.head.weight.zero_()
    assert "No evidence" in texts_of(dark.explain(uniform(1, 3, 32, 32))[0].figure())
