import pytest
import torch
from torch import nn

import explainkit as ek
from explainkit.data.types import Batch
from explainkit.explanations.decomposition import Decomposition
from explainkit.testing.examples import tiny_dataset
from explainkit_cam.losses import class_evidence, evidence_loss
from explainkit_cam.model import CAMNetwork


def network(classes=4):
    torch.manual_seed(0)
    return CAMNetwork(ek.backbone("local", width=32), classes).eval()


def batch(count=3, classes=4):
    generator = torch.Generator().manual_seed(1)
    return Batch(
        images=torch.rand(count, 3, 32, 32, generator=generator),
        labels=torch.arange(count) % classes,
        ids=torch.arange(count),
    )


def test_class_evidence_is_the_logit_cell_by_cell():
    made, images = network(), batch().images

    decomposition: Decomposition = made.decompose(images)
    evidence = class_evidence(made, decomposition.maps)

    torch.testing.assert_close(evidence.mean((2, 3)), decomposition.logits)
    n, c, i, j = 1, 2, 3, 5
    literal = made.head.bias[c] + sum(
        made.head.weight[c, k] * decomposition.maps[n, k, i, j] for k in range(made.head.in_features)
    )
    torch.testing.assert_close(evidence[n, c, i, j], literal)


def test_averaging_before_the_linear_layer_and_after_a_1_x_1_convolution_are_one_network():
    made, images = network(), batch().images
    convolution = nn.Conv2d(made.head.in_features, made.head.out_features, 1)
    with torch.no_grad():
        convolution.weight.copy_(made.head.weight[:, :, None, None])
        convolution.bias.copy_(made.head.bias)

    softcam = convolution(made.backbone(images)).mean((2, 3))

    torch.testing.assert_close(softcam, made(images))


def test_the_elastic_net_is_of_every_value_of_every_map():
    made, given = network(), batch()
    evidence = class_evidence(made, made.decompose(given.images).maps)
    values = [value.item() for value in evidence.flatten()]

    terms = evidence_loss(made, given, None, evidence_l1=0.3, evidence_l2=0.7)

    torch.testing.assert_close(
        terms["evidence_l1"].item(), 0.3 * sum(map(abs, values)) / len(values), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(
        terms["evidence_l2"].item(), 0.7 * sum(v * v for v in values) / len(values), rtol=1e-5, atol=0
    )


def test_without_weights_cam_learns_by_cross_entropy_alone():
    assert list(evidence_loss(network(), batch(), None)) == ["cross_entropy"]


def test_a_softcam_says_less_of_all_classes_than_cam():
    dataset = tiny_dataset()
    images = dataset.test.batch(torch.arange(6)).images
    sizes = []
    for weight in (0.0, 20.0):
        model = ek.explainer(
            "cam", backbone="local", backbone_settings={"width": 32}, epochs=3, evidence_l1=weight
        ).fit(dataset, seed=0, device="cpu", progress=False)
        with torch.no_grad():
            maps = model.network.decompose(images).maps
            sizes.append(class_evidence(model.network, maps).abs().mean())
        assert model.explain(images).check_additivity()

    assert sizes[1] < 0.8 * sizes[0]


@pytest.mark.parametrize("weight", [-1.0, float("inf"), "much"])
def test_a_penalty_below_zero_or_without_end_is_refused(weight):
    for name in ("evidence_l1", "evidence_l2"):
        with pytest.raises(ek.InputError, match=f"Expected {name} of CAM"):
            ek.explainer("cam", **{name: weight})


@pytest.mark.parametrize("name", ["cam", "protopnet", "ccnn", "ra-cnn"])
def test_backbone_settings_that_are_no_mapping_are_refused(name):
    with pytest.raises(ek.InputError, match=r"backbone_settings of .* as a mapping of names.*; got 3"):
        ek.explainer(name, backbone_settings=3)
