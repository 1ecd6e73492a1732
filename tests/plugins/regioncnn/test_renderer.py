"""Drawings show the regions as a segmentation, and what each adds."""

import numpy as np
import torch
from plugin_cases import uniform
from regioncnn_networks import explainer

from explainkit.rendering.pictures import pixels
from explainkit_regioncnn.renderer import colors_of, region_labels, segmented


def texts_of(figure):
    figure.canvas.draw()
    texts = []
    for axes in figure.findobj(lambda artist: hasattr(artist, "get_yticklabels")):
        texts += [axes.get_title(), *(text.get_text() for text in axes.texts + axes.get_yticklabels())]
    return " ".join(texts).replace("\n", " ")


def test_a_drawing_numbers_regions_and_multiplies_attention_with_evidence():
    explanation = explainer().explain(uniform(2, 3, 32, 32))[0]

    text = texts_of(explanation.figure())

    item = explanation.top(1)[0]
    assert "regions, by number" in text and item.name in text
    assert (
        f"{item.contribution:+.2f} = {item.score:.0%} attention \N{MULTIPLICATION SIGN} {item.weight:+.1f}"
        in text
    )


def test_every_pixel_has_the_color_of_its_region_and_background_a_faint_one():
    model = explainer()
    model.network.border_density.copy_(torch.tensor([0.1, 0.9, 0.4, 1.2, 0.0]))
    model.units = model.describe_units(model.network)
    explanation = model.explain(torch.full((1, 3, 32, 32), 0.5))[0]
    labels = np.zeros(pixels(explanation.image, 192).shape[:2], np.uint8)
    labels[:, 100:] = 1

    picture = segmented(explanation, labels) / 255

    first, second = colors_of(5)[:2]
    np.testing.assert_allclose(picture[10, 10], 0.5 * 0.4 + first * 0.6, atol=0.01)
    np.testing.assert_allclose(picture[10, 150], 0.5 * 0.85 + second * 0.15, atol=0.01)
    assert picture[10, 100].sum() < picture[10, 101].sum()  # a dark line between them


def test_labels_are_the_strongest_regions_of_cells():
    explanation = explainer().explain(uniform(2, 3, 32, 32))[1]

    labels = region_labels(explanation)

    strongest = explanation.batch.maps[1].argmax(0).numpy()
    assert np.array_equal(labels[12::24, 12::24], strongest)


def test_explanations_with_few_maps_contrasts_and_many_regions_are_drawn():
    explanations = explainer().explain(uniform(2, 3, 32, 32))

    assert "not all maps were kept" in texts_of(explanations.keep_maps(2)[0].figure())
    assert "margin" in texts_of(explanations.contrast(2)[0].figure())
    many = explainer(regions=14).explain(uniform(1, 3, 32, 32))[0]
    assert many.figure().axes and len(np.unique(colors_of(14), axis=0)) == 14
