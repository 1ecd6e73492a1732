"""The drawing: a ledger that adds up, with decoded prototypes beside real images."""

import numpy as np
import pytest
import torch
from prototypednn_networks import fitted

from explainkit.testing import fitted_example, tiny_images


@pytest.fixture(scope="module")
def explanations():
    return fitted_example("prototype-dnn").explain(tiny_images())


def texts_of(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def drawn_sums(texts):
    """Numbers with a sign that stand alone: the column that adds up."""
    return [float(text) for text in texts if text[:1] in "+-" and text[1:].replace(".", "").isdigit()]


def test_the_ledger_adds_up_to_the_logit(explanations):
    for explanation in explanations:
        *parts, total = drawn_sums(texts_of(explanation.figure()))

        assert total == pytest.approx(explanation.explained_output, abs=0.006)
        assert sum(parts) == pytest.approx(total, abs=0.006 * len(parts))


def test_it_draws_each_prototype_as_decoded_beside_its_nearest_training_image(explanations):
    figure = explanations[0].figure()
    ledger = figure.axes[1]
    shown = [image.get_array() for image in ledger.get_images()]

    assert len(shown) % 2 == 0 and len(shown) >= 4
    texts = texts_of(figure)
    assert "prototype,\ndecoded" in texts and "nearest to it\nin training" in texts
    assert any("nearer than" in text or "farther than" in text for text in texts)
    assert "prototypes are compared with the whole image" in texts


def test_a_contrast_is_drawn_as_a_margin(explanations):
    foils = explanations.logits.topk(2, 1).indices[:, 1]
    contrast = explanations.contrast(foils)[0]

    texts = texts_of(contrast.figure())

    assert f"{contrast.target_name}: margin over {contrast.foil_name}" in texts
    assert drawn_sums(texts)[-1] == pytest.approx(contrast.explained_output, abs=0.006)


def test_what_the_decoder_misses_is_below_the_image_where_it_was_measured():
    model = fitted(with_reconstruction=True)

    texts = texts_of(model.explain(tiny_images())[0].figure())

    assert any("the decoder misses 0." in text for text in texts)


def test_it_draws_without_images_and_without_pictures(explanations):
    bare = explanations.without_images()

    figure = bare[0].figure()

    figure.canvas.draw()
    assert np.isfinite([value for value in drawn_sums(texts_of(figure))]).all()
    assert torch.equal(bare.scores, explanations.scores)
