"""The user's network, read from its graph."""

import pytest
import torch
from cam_networks import Small, zoo_network
from plugin_cases import assert_near, uniform
from torch import nn

import explainkit as ek
from explainkit.errors import UnsupportedNetworkError

READ = ["resnet18", "densenet121", "mobilenet_v2", "efficientnet_b0", "googlenet", "regnet_y_400mf"]


@pytest.mark.parametrize("name", READ)
def test_torchvisions_networks_are_read_and_left_as_they_were(name):
    network, images = zoo_network(name), uniform(2, 3, 64, 64)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]

    explainer = ek.explainer("cam", network=network, size=(64, 64))
    explanations = explainer.explain(images, 3).check_additivity()

    assert [module.training for module in network.modules()] == modes
    assert network.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    network.eval()
    with torch.no_grad():
        logits = network(images)
    assert_near(explanations.logits, logits)
    assert_near(explanations.explained_output, logits[:, 3], scale=logits)
    total = explanations.saliency().sum((1, 2)) + explanations.base
    assert_near(total, logits[:, 3], scale=explanations.contributions.abs().sum(1))
    assert len(explanations.classes) == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("squeezenet1_1", "linear layer at the end"),
        ("vgg11", "global average pooling before"),
        ("convnext_tiny", "global average pooling before"),
        ("mobilenet_v3_small", "global average pooling before"),
        ("alexnet", "global average pooling before"),
        ("vit_b_32", "global average pooling before"),
    ],
)
def test_networks_of_another_form_are_refused_in_words(name, message):
    with torch.device("meta"):  # read from the graph alone, so that no weight need exist
        network = zoo_network(name)

    with pytest.raises(UnsupportedNetworkError, match=message):
        ek.explainer("cam", network=network, size=(64, 64))


def test_float64_networks_are_read():
    explainer = ek.explainer("cam", network=zoo_network("resnet18").double(), size=(64, 64))

    explanations = explainer.explain(uniform(2, 3, 64, 64))

    assert explanations.check_additivity().residual.abs().max() < 1e-10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_networks_are_refused_in_words(dtype):
    with pytest.raises(UnsupportedNetworkError, match=r"float32 or float64; got torch\.b?float16"):
        ek.explainer("cam", network=zoo_network("resnet18").to(dtype), size=(64, 64))


def test_filters_below_zero_become_two_units():
    network, images = Small(last=nn.Identity()), uniform(3, 3, 16, 16)

    explanations = ek.explainer("cam", network=network, size=(16, 16)).explain(images).check_additivity()

    assert len(explanations.units) == 12 and explanations.units.names[0] == "filter 0 above zero"
    assert (explanations.maps >= 0).all()
    assert_near(explanations.logits, network(images))
    features = network.features(images).detach()
    literal = torch.einsum("nk,nkhw->nhw", network.head.weight[explanations.targets], features) / 16
    assert_near(explanations.saliency((4, 4)), literal)


def test_filters_never_below_zero_stay_one_unit():
    assert len(ek.explainer("cam", network=Small(), size=(16, 16)).explain(uniform(1, 3, 16, 16)).units) == 6


def test_pre_activation_features_given_by_hand_are_refused():
    network = zoo_network("densenet121")  # its ReLU is a function after `features`

    with pytest.raises(UnsupportedNetworkError, match=r"differ by .*something stands between"):
        ek.explainer(
            "cam", network=network, features=network.features, head=network.classifier, size=(64, 64)
        )


def test_parts_given_by_hand_are_checked_and_used():
    network, images = Small(), uniform(2, 3, 16, 16)
    features = nn.Sequential(network.features, network.last)

    explainer = ek.explainer("cam", network=network, features=features, head=network.head, size=(16, 16))

    assert_near(explainer.explain(images).check_additivity().logits, network(images))


@pytest.mark.parametrize("part", ["features", "head"])
def test_one_part_alone_is_refused(part):
    network = Small()

    with pytest.raises(UnsupportedNetworkError, match="both features=… and head=…"):
        ek.explainer("cam", network=network, **{part: getattr(network, part)})


@pytest.mark.parametrize(
    "wrong",
    [
        Small(pool=nn.AdaptiveMaxPool2d(1)),
        Small(pool=nn.AdaptiveAvgPool2d(2), head=nn.Linear(24, 3)),
        Small(head=nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))),
        Small(head=nn.Sequential(nn.Linear(6, 3), nn.Softmax(1))),
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 3)),
        nn.Identity(),
    ],
    ids=["max", "2x2", "two heads", "softmax", "flat", "norm between", "nothing"],
)
def test_what_is_not_mean_and_line_is_refused(wrong):
    with pytest.raises(UnsupportedNetworkError, match="Expected"):
        ek.explainer("cam", network=wrong, size=(16, 16))


def test_an_untraceable_network_is_refused_with_the_way_to_name_its_parts():
    class Branching(Small):
        def forward(self, images):
            return super().forward(images if images.mean() > 0 else -images)

    with pytest.raises(UnsupportedNetworkError, match=r"could not be traced.*features="):
        ek.explainer("cam", network=Branching(), size=(16, 16))


def test_a_network_stays_as_it_was_when_it_is_refused():
    wrong = Small(pool=nn.AdaptiveMaxPool2d(1)).train()

    with pytest.raises(UnsupportedNetworkError):
        ek.explainer("cam", network=wrong, size=(16, 16))

    assert all(module.training for module in wrong.modules())


def test_an_average_over_part_of_the_features_is_refused_when_it_happens():
    explainer = ek.explainer("cam", network=Small(pool=nn.AvgPool2d(4)), size=(16, 16))

    explainer.explain(uniform(1, 3, 16, 16)).check_additivity()
    with pytest.raises(UnsupportedNetworkError, match="something stands between"):
        explainer.explain(uniform(1, 3, 24, 24))


def test_mean_and_std_are_applied_inside():
    network, images = Small(), uniform(2, 3, 16, 16)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    explainer = ek.explainer("cam", network=network, mean=mean, std=std, size=(16, 16))

    normalized = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert_near(explainer.explain(images).check_additivity().logits, network(normalized))
    assert_near(explainer.predict(images), network(normalized))


def test_a_bound_network_learns_on_with_its_owner():
    network, images = Small(), uniform(2, 3, 16, 16)
    explainer = ek.explainer("cam", network=network, size=(16, 16))
    with torch.no_grad():
        network.head.weight.add_(1)

    assert_near(explainer.explain(images).check_additivity().logits, network(images))


@pytest.mark.parametrize("last", [nn.ReLU, nn.Identity])
def test_a_bound_network_is_saved_and_loaded_with_a_network_of_its_form(tmp_path, last):
    torch.manual_seed(1)
    explainer = ek.explainer(
        "cam", network=Small(last()), classes=("a", "b", "c"), mean=(0.4,) * 3, std=(0.2,) * 3, size=(16, 16)
    )
    explanations = explainer.explain(uniform(3, 3, 16, 16))
    folder = ek.save(explainer, tmp_path / "model")

    loaded = ek.load(folder, network=Small(last())).explain(uniform(3, 3, 16, 16))

    assert_near(loaded.contributions, explanations.contributions)
    assert loaded.classes == ("a", "b", "c") and loaded.units.names == explanations.units.names


def test_whether_filters_go_below_zero_is_saved(tmp_path):
    torch.manual_seed(1)
    network = Small(last=nn.Identity())
    explainer = ek.explainer("cam", network=network, size=(16, 16))
    explanations = explainer.explain(uniform(2, 3, 16, 16))
    folder = ek.save(explainer, tmp_path / "model")
    fresh = Small(last=nn.Identity())
    with torch.no_grad():
        fresh.features[2].bias += 100  # until its weights are loaded, it never goes below zero

    loaded = ek.load(folder, network=fresh).explain(uniform(2, 3, 16, 16))

    assert_near(loaded.contributions, explanations.contributions)


def test_classes_are_named_or_counted_off():
    assert ek.explainer("cam", network=Small(), size=(16, 16)).classes == ("class 0", "class 1", "class 2")
    assert ek.explainer("cam", network=Small(), classes=list("abc"), size=(16, 16)).classes == ("a", "b", "c")
    with pytest.raises(ek.InputError, match="3 class"):
        ek.explainer("cam", network=Small(), classes=["a", "b"], size=(16, 16))


def test_images_of_a_bound_network_may_be_normalized_already():
    explainer = ek.explainer("cam", network=Small(), size=(16, 16), value_range=None)

    explainer.explain(uniform(1, 3, 16, 16) * 4 - 2).check_additivity()


def test_a_network_of_somebody_else_keeps_its_units_and_is_intervened_on():
    explainer, images = ek.explainer("cam", network=Small().eval(), size=(32, 32)), uniform(2, 3, 32, 32)

    with pytest.raises(UnsupportedNetworkError, match=r"BoundNetwork has none\. Use intervene"):
        explainer.disable_units(0)

    explainer.intervene(images, {0: "off"}).check_additivity()
