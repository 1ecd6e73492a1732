"""A third-party plugin whose maps are factored and whose units are pooled in three ways."""

import pickle
from pathlib import Path

import pytest
import torch
from attrs import evolve
from plugin_cases import assert_near

import explainkit as ek
from explainkit.explanations.factored_maps import dense_maps
from explainkit.testing import check_explainer, tiny_dataset, tiny_images

HOOKS = """
@hookimpl
def explainkit_explainers():
    return [Offer("attended", "A fixture", "thirdparty_explainkit_attended.parts:Attended")]

@hookimpl
def explainkit_backbones():
    return []
"""


@pytest.fixture
def attended(install):
    package = install("attended", HOOKS)
    (package / "parts.py").write_text(Path(__file__).with_name("attended_plugin.py").read_text())
    return ek.explainer("attended").fit(tiny_dataset(), seed=0, device="cpu", progress=False)


def dense(explanations):
    """The same with maps that are built."""
    maps = dense_maps(explanations.maps)
    return evolve(explanations, maps=maps, decomposition=evolve(explanations.decomposition, maps=maps))


def test_it_learns_and_keeps_every_promise(attended):
    assert attended.evaluate(tiny_dataset(), ["test"])["test"]["accuracy"] >= 0.9

    check_explainer(attended, tiny_images())


def test_its_factors_explain_as_its_maps_do(attended, tmp_path):
    explanations = attended.explain(tiny_images(), batch_size=4)
    expected = dense(explanations)

    assert isinstance(explanations.maps, ek.FactoredMaps)
    assert set(explanations.units.pooling) == {"sum", "max", "none"}
    for one, other in (
        (explanations, expected),
        (attended.explain(tiny_images(), maps=5, batch_size=4), expected.keep_maps(5)),
        (explanations.contrast(0), expected.contrast(0)),
        (pickle.loads(pickle.dumps(explanations)), expected),
        (ek.Explanations.load(explanations.save(tmp_path / "file", maps=None)), expected),
    ):
        assert_near(one.saliency(), other.saliency())
        assert_near(one.nonspatial, other.nonspatial, scale=other.contributions)
        assert [item.sentence() for item in one] == [item.sentence() for item in other]
    colors = explanations.contributions[:, -3:].sum(1)
    assert_near(explanations.nonspatial, colors, scale=explanations.contributions)


def test_its_scores_are_sums_and_peaks_of_its_maps(attended):
    explanations = attended.explain(tiny_images())
    maps, units = dense_maps(explanations.maps).flatten(2), explanations.units

    pooled = {"sum": maps.sum(2), "max": maps.amax(2)}

    for k in range(len(units) - 3):
        assert_near(explanations.scores[:, k], pooled[units.pooling_of(k)][:, k], scale=explanations.scores)


def test_its_questions_are_answered_as_by_the_maps(attended, monkeypatch):
    dataset = tiny_dataset()
    answers = []
    for is_dense in (False, True):
        if is_dense:
            decompose = type(attended.network).decompose

            def with_dense_maps(network, images, decompose=decompose):
                decomposition = decompose(network, images)
                return evolve(decomposition, maps=dense_maps(decomposition.maps))

            monkeypatch.setattr(type(attended.network), "decompose", with_dense_maps)
        swaps = attended.counterfactual(tiny_images(), distractors=dataset.test.batch(torch.arange(24)))
        answers.append((attended.explain_class(dataset), swaps.edits["region-swap"]))

    (one, swap), (other, dense_swap) = answers
    for name in ("ids", "cells", "boxes"):
        assert torch.equal(getattr(one.examples, name), getattr(other.examples, name))
    assert torch.equal(swap.success, dense_swap.success) and torch.equal(swap.regions, dense_swap.regions)


class Factors(torch.nn.Module):
    """Logits and the factors of maps: what an exported graph can hold."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        decomposition = self.network.decompose(images)
        maps = decomposition.maps
        return decomposition.logits, maps.attention, maps.features, maps.dense()


def test_its_decomposition_is_exported(attended):
    module, images = Factors(attended.network.eval()), tiny_images()

    program = torch.export.export(
        module, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},), strict=False
    ).module()

    for count in (1, 5):
        other = tiny_dataset().test.batch(torch.arange(count)).images
        with torch.no_grad():
            for value, wanted in zip(program(other), module(other), strict=True):
                assert_near(value, wanted)
