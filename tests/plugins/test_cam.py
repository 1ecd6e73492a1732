import gc

import pytest
import torch
import torchvision.models as zoo
from torch import nn
from torch.nn import functional as F

import explainkit as ek
from explainkit.data.images import ArraySplit
from explainkit.decomposition import resize
from explainkit.errors import BindError
from explainkit_cam.explainer import CAM, boxes
from explainkit_cam.model import CAMNetwork, pooled

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def network(classes=4, seed=0, backbone="tiny", **settings):
    torch.manual_seed(seed)
    made = CAMNetwork(ek.backbone(backbone), classes, **settings)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it had seen data
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return made.eval()


def cam(dtype=torch.float32, **settings):
    return ek.explainer("cam", network=network(**settings).to(dtype), size=(32, 32))


# the network that is trained here


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("target", range(4))
def test_the_map_and_the_bias_are_the_logit(dtype, target):
    explainer, images = cam(dtype), drawn(3, 3, 32, 32)

    told = explainer.explain(images, target)

    logits = explainer.network(images.to(dtype))[:, target]
    head = explainer.network.head
    features = explainer.network.backbone(images.to(dtype))
    activation_map = torch.einsum("k,nkhw->nhw", head.weight[target], features) / features[0, 0].numel()
    torch.testing.assert_close(told.saliency((8, 8)), activation_map, atol=TOLERANCE[dtype], rtol=1e-4)
    total = told.saliency().sum((1, 2)) + head.bias[target]
    torch.testing.assert_close(total, logits, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    assert told.residual.abs().max() <= TOLERANCE[dtype] * told.logits.abs().max()


def test_filters_and_cells_sum_to_the_logit_literally():
    explainer, images = cam(torch.float64), drawn(1, 3, 32, 32)

    parts = explainer.network.decompose(images.double())

    height, width = parts.maps.shape[2:]
    for c in range(4):
        total = parts.bias[c].item()
        for k in range(parts.maps.shape[1]):
            for row in range(height):
                for column in range(width):
                    cell = parts.maps[0, k, row, column] / (height * width)
                    total += (parts.weights[c, k] * cell).item()
        assert total == pytest.approx(parts.logits[0, c].item(), rel=1e-10)


def test_sums_hold_on_a_thousand_images():
    explainer = cam()

    told = explainer.explain(drawn(1000, 3, 32, 32))

    assert len(told.check()) == 1000
    torch.testing.assert_close(told.logits, explainer.predict(drawn(1000, 3, 32, 32)))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_autograds_element_wise_grad_cam_is_the_contribution_map(dtype):
    explainer, images = cam(dtype), drawn(3, 3, 32, 32).to(dtype)
    features = explainer.network.backbone(images).detach().requires_grad_()
    logits = pooled(features, explainer.network.head).logits
    targets = logits.argmax(1)

    (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), features)

    told = explainer.explain(images)
    assert torch.equal(told.targets, targets)
    torch.testing.assert_close(
        (gradient * features).sum((2, 3)), told.contributions, atol=TOLERANCE[dtype], rtol=1e-4
    )
    torch.testing.assert_close(
        (gradient * features).sum(1), told.saliency(features.shape[2:]), atol=TOLERANCE[dtype], rtol=1e-4
    )


def test_contrasts_are_antisymmetric_and_blind_to_what_all_classes_share():
    explainer, images = cam(torch.float64), drawn(3, 3, 32, 32)

    why = explainer.explain(images, 1, against=2).check()
    why_not = explainer.explain(images, 2, against=1)
    before = explainer.predict(images).softmax(1)
    with torch.no_grad():
        explainer.network.head.weight -= explainer.network.head.weight.mean(0)
    centred = explainer.explain(images, 1, against=2)

    torch.testing.assert_close(why.saliency(), -why_not.saliency())
    torch.testing.assert_close(why.contributions.sum(1) + why.base, why.logits[:, 1] - why.logits[:, 2])
    torch.testing.assert_close(centred.saliency(), why.saliency())
    torch.testing.assert_close(explainer.predict(images).softmax(1), before)


class Given(ek.Backbone):
    """Gives the features that it was handed, whatever the image."""

    channels, stride, receptive_field = 6, 4, 4

    def __init__(self, features):
        super().__init__()
        self.register_buffer("features", features)

    def forward(self, images):
        return self.features.expand(len(images), -1, -1, -1)


def told_of(features, **settings):
    torch.manual_seed(0)
    return ek.explainer("cam", network=CAMNetwork(Given(features), 3), **settings).explain(
        torch.zeros(1, 3, 16, 16), 2
    )


def test_one_active_cell_gets_all_of_the_evidence():
    features = torch.zeros(1, 6, 4, 4)
    features[0, 3, 1, 2] = 5

    told = told_of(features)

    expected = torch.zeros(4, 4)
    expected[1, 2] = told.weights[0, 3] * 5 / 16
    torch.testing.assert_close(told.saliency((4, 4))[0], expected)
    assert told.contributions[0].nonzero().flatten().tolist() == [3]


def test_shifted_features_shift_the_map_and_keep_the_logits():
    features = drawn(1, 6, 4, 4)

    told, shifted = told_of(features), told_of(features.roll((1, 2), (2, 3)))

    torch.testing.assert_close(shifted.logits, told.logits)
    torch.testing.assert_close(shifted.saliency((4, 4)), told.saliency((4, 4)).roll((1, 2), (1, 2)))


def test_a_batch_is_its_images_one_by_one():
    explainer, images = cam(), drawn(5, 3, 32, 32)

    whole = explainer.explain(images)

    for n in range(5):
        one = explainer.explain(images[n : n + 1])
        torch.testing.assert_close(one.contributions[0], whole.contributions[n], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(one.maps[0], whole.maps[n], atol=1e-6, rtol=1e-4)


def test_many_explanations_leave_nothing_behind():
    explainer, images = cam(), drawn(1, 3, 16, 16)
    explainer.explain(images)

    def tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    before = tensors()
    for _ in range(30):
        explainer.explain(images).saliency()

    assert tensors() <= before + 2
    for module in explainer.network.modules():
        assert not module._forward_hooks and not module._backward_hooks and not module._forward_pre_hooks


def test_maps_come_back_bit_by_bit_from_a_state_dict():
    images, other = drawn(2, 3, 32, 32), network(seed=9)

    other.load_state_dict(network().state_dict())

    assert torch.equal(other.decompose(images).maps, network().decompose(images).maps)
    assert torch.equal(other(images), network()(images))


def test_forward_gives_logits_with_gradients_and_so_does_decompose():
    made, images = network(), drawn(2, 3, 32, 32)

    assert torch.equal(made(images), made.decompose(images).logits)
    made.decompose(images).scores.sum().backward()
    assert made.backbone.stem[0].weight.grad.abs().sum() > 0


def test_dropout_is_between_pooling_and_head_and_silent_when_explaining():
    made, images = network(dropout=0.5), drawn(2, 3, 32, 32)
    explainer = ek.explainer("cam", network=made)
    made.train()

    told = explainer.explain(images).check()

    assert made.training and torch.equal(told.logits, network().decompose(images).logits)
    features = drawn(1, 32, 4, 4)
    made.dropout.train()
    torch.manual_seed(0)
    dropped = pooled(features, made.head, made.dropout).logits
    torch.manual_seed(0)
    torch.testing.assert_close(dropped, made.head(F.dropout(features.mean((2, 3)), 0.5, True)))


def test_heads_stay_in_full_precision_under_autocast():
    explainer = cam()

    with torch.autocast("cpu", torch.bfloat16):
        told = explainer.explain(drawn(4, 3, 32, 32))

    assert told.logits.dtype is torch.float32 and told.maps.dtype is torch.float32
    told.check()


# boxes


def rectangle(threshold=0.2):
    """Explanations whose class activation map is a bright rectangle beside a faint and a small one."""
    features = torch.zeros(1, 6, 32, 32)
    features[0, 0, 4:12, 6:26] = 1
    features[0, 0, 20:30, 6:26] = 0.1
    features[0, 0, 16:18, 28:30] = 1.5
    torch.manual_seed(0)
    made = CAMNetwork(Given(features), 3)
    with torch.no_grad():
        made.head.weight[:, 0] = 1
    return ek.explainer("cam", network=made).explain(torch.zeros(1, 3, 64, 64), 2)


def test_a_box_is_the_largest_piece_above_a_fifth_of_the_maximum():
    found = boxes(rectangle())[0]

    assert (found - torch.tensor([12, 8, 52, 24])).abs().max() <= 1


def test_a_box_shrinks_as_the_threshold_grows():
    told = cam().explain(drawn(6, 3, 32, 32))
    areas = []
    for threshold in (0.05, 0.2, 0.9):
        x0, y0, x1, y1 = boxes(told, threshold).unbind(1)
        areas.append((x1 - x0) * (y1 - y0))

    assert (areas[0] >= areas[1]).all() and (areas[1] >= areas[2]).all()


# networks of others


def zoo_network(name, **settings):
    torch.manual_seed(0)
    if name == "googlenet":
        settings["init_weights"] = False
    return getattr(zoo, name)(weights=None, num_classes=7, **settings)


READ = ["resnet18", "densenet121", "mobilenet_v2", "efficientnet_b0", "googlenet", "regnet_y_400mf"]


@pytest.mark.parametrize("name", READ)
def test_torchvisions_networks_are_read_and_left_as_they_were(name):
    theirs, images = zoo_network(name), drawn(2, 3, 64, 64)
    state = {key: value.clone() for key, value in theirs.state_dict().items()}
    modes = [module.training for module in theirs.modules()]

    explainer = ek.explainer("cam", network=theirs, size=(64, 64))
    told = explainer.explain(images, 3).check()

    assert [module.training for module in theirs.modules()] == modes
    assert theirs.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in theirs.state_dict().items())
    assert not any(module._forward_hooks for module in theirs.modules())
    theirs.eval()
    with torch.no_grad():
        logits = theirs(images)
    torch.testing.assert_close(told.logits, logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(told.totals, logits[:, 3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        told.saliency().sum((1, 2)) + told.base,
        logits[:, 3],
        atol=1e-4 * float(logits.abs().max()),
        rtol=1e-4,
    )
    assert len(told.classes) == 7


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("squeezenet1_1", "linear layer at the end"),
        ("vgg11", "global average pooling before"),
        ("convnext_tiny", "global average pooling before"),
        ("mobilenet_v3_small", "global average pooling before"),
        ("alexnet", "global average pooling before"),
        ("vit_b_32", "global average pooling before"),
    ],
)
def test_networks_of_another_form_are_refused_in_words(name, found):
    with torch.device("meta"):  # read from the graph alone, so that no weight need exist
        theirs = zoo_network(name)

    with pytest.raises(BindError, match=found):
        ek.explainer("cam", network=theirs, size=(64, 64))


def test_float64_networks_are_read():
    told = ek.explainer("cam", network=zoo_network("resnet18").double(), size=(64, 64)).explain(
        drawn(2, 3, 64, 64)
    )

    assert told.check().residual.abs().max() < 1e-10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_networks_are_refused_in_words(dtype):
    with pytest.raises(BindError, match=r"float32 or float64; got torch\.b?float16"):
        ek.explainer("cam", network=zoo_network("resnet18").to(dtype), size=(64, 64))


class Small(nn.Module):
    """A GAP network in all its variations."""

    def __init__(self, last=None, pool=None, head=None):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1))
        self.last, self.pool = last or nn.ReLU(), pool or nn.AdaptiveAvgPool2d(1)
        self.head = head or nn.Linear(6, 3)

    def forward(self, images):
        return self.head(self.pool(self.last(self.features(images))).flatten(1))


def test_filters_below_zero_become_two_units():
    theirs, images = Small(last=nn.Identity()), drawn(3, 3, 16, 16)

    told = ek.explainer("cam", network=theirs, size=(16, 16)).explain(images).check()

    assert len(told.units) == 12 and told.units.names[0] == "filter 0 above zero"
    assert (told.maps >= 0).all()
    torch.testing.assert_close(told.logits, theirs(images).detach())
    features = theirs.features(images).detach()
    literal = torch.einsum("nk,nkhw->nhw", theirs.head.weight[told.targets], features) / 16
    torch.testing.assert_close(told.saliency((4, 4)), literal.detach(), atol=1e-6, rtol=1e-4)


def test_filters_never_below_zero_stay_one_unit():
    assert len(ek.explainer("cam", network=Small(), size=(16, 16)).explain(drawn(1, 3, 16, 16)).units) == 6


def test_pre_activation_features_given_by_hand_are_refused():
    theirs = zoo_network("densenet121")  # its ReLU is a function after `features`

    with pytest.raises(BindError, match=r"differ by .*something stands between"):
        ek.explainer("cam", network=theirs, features=theirs.features, head=theirs.classifier, size=(64, 64))


def test_parts_given_by_hand_are_checked_and_used():
    theirs, images = Small(), drawn(2, 3, 16, 16)
    features = nn.Sequential(theirs.features, theirs.last)

    told = ek.explainer("cam", network=theirs, features=features, head=theirs.head, size=(16, 16)).explain(
        images
    )

    torch.testing.assert_close(told.check().logits, theirs(images).detach())


@pytest.mark.parametrize("part", ["features", "head"])
def test_one_part_alone_is_refused(part):
    theirs = Small()

    with pytest.raises(BindError, match="both features=… and head=…"):
        ek.explainer("cam", network=theirs, **{part: getattr(theirs, part)})


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
    with pytest.raises(BindError, match="Expected"):
        ek.explainer("cam", network=wrong, size=(16, 16))


def test_what_cannot_be_traced_is_told_how_to_name_its_parts():
    class Branching(Small):
        def forward(self, images):
            return super().forward(images if images.mean() > 0 else -images)

    with pytest.raises(BindError, match=r"could not be traced.*features="):
        ek.explainer("cam", network=Branching(), size=(16, 16))


def test_a_network_stays_as_it_was_when_it_is_refused():
    wrong = Small(pool=nn.AdaptiveMaxPool2d(1)).train()

    with pytest.raises(BindError):
        ek.explainer("cam", network=wrong, size=(16, 16))

    assert all(module.training for module in wrong.modules())


def test_an_average_over_part_of_the_features_is_refused_when_it_happens():
    explainer = ek.explainer("cam", network=Small(pool=nn.AvgPool2d(4)), size=(16, 16))

    explainer.explain(drawn(1, 3, 16, 16)).check()
    with pytest.raises(BindError, match="something stands between"):
        explainer.explain(drawn(1, 3, 24, 24))


def test_mean_and_std_are_applied_inside():
    theirs, images = Small(), drawn(2, 3, 16, 16)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    explainer = ek.explainer("cam", network=theirs, mean=mean, std=std, size=(16, 16))

    wanted = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(explainer.explain(images).check().logits, theirs(wanted).detach())
    torch.testing.assert_close(explainer.predict(images), theirs(wanted).detach())


def test_a_bound_network_learns_on_with_its_owner():
    theirs, images = Small(), drawn(2, 3, 16, 16)
    explainer = ek.explainer("cam", network=theirs, size=(16, 16))
    with torch.no_grad():
        theirs.head.weight.add_(1)

    torch.testing.assert_close(explainer.explain(images).check().logits, theirs(images).detach())


@pytest.mark.parametrize("last", [nn.ReLU, nn.Identity])
def test_a_bound_network_is_saved_and_loaded_with_a_network_of_its_form(tmp_path, last):
    torch.manual_seed(1)
    explainer = ek.explainer(
        "cam", network=Small(last()), classes=("a", "b", "c"), mean=(0.4,) * 3, std=(0.2,) * 3, size=(16, 16)
    )
    told = explainer.explain(drawn(3, 3, 16, 16))
    folder = ek.save(explainer, tmp_path / "model")

    again = ek.load(folder, network=Small(last())).explain(drawn(3, 3, 16, 16))

    torch.testing.assert_close(again.contributions, told.contributions)
    assert again.classes == ("a", "b", "c") and again.units.names == told.units.names


def test_whether_filters_go_below_zero_is_saved(tmp_path):
    torch.manual_seed(1)
    theirs = Small(last=nn.Identity())
    explainer = ek.explainer("cam", network=theirs, size=(16, 16))
    told = explainer.explain(drawn(2, 3, 16, 16))
    folder = ek.save(explainer, tmp_path / "model")
    fresh = Small(last=nn.Identity())
    with torch.no_grad():
        fresh.features[2].bias += 100  # until its weights are loaded, it never goes below zero

    again = ek.load(folder, network=fresh).explain(drawn(2, 3, 16, 16))

    torch.testing.assert_close(again.contributions, told.contributions)


def test_classes_are_named_or_counted_off():
    assert ek.explainer("cam", network=Small(), size=(16, 16)).classes == ("class 0", "class 1", "class 2")
    assert ek.explainer("cam", network=Small(), classes=list("abc"), size=(16, 16)).classes == ("a", "b", "c")
    with pytest.raises(ek.InputError, match="3 class"):
        ek.explainer("cam", network=Small(), classes=["a", "b"], size=(16, 16))


def test_images_of_a_bound_network_may_be_normalised_already():
    explainer = ek.explainer("cam", network=Small(), size=(16, 16))

    explainer.explain(drawn(1, 3, 16, 16) * 4 - 2).check()


# learning


def separable(count=48):
    """Two classes that a colour tells apart."""
    labels = torch.arange(count) % 2
    images = torch.randint(0, 60, (count, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    images[labels == 1, 0] += 180
    return ek.ImageData(
        name="colours",
        classes=("blue", "red"),
        size=(16, 16),
        splits={
            name: ArraySplit(images=images.byte(), labels=labels) for name in ("train", "validation", "test")
        },
    )


def test_cam_learns_and_its_sums_hold():
    explainer = ek.explainer("cam", backbone="tiny", epochs=4, batch_size=16)

    explainer.fit(separable(), seed=0)

    assert explainer.evaluate(separable())["test"]["accuracy"] == 1
    assert explainer.history[-1].terms["cross_entropy"] < explainer.history[0].terms["cross_entropy"]
    told = explainer.explain(separable().test.batch(torch.arange(4)))
    assert [told.classes[target] for target in told.targets] == ["blue", "red", "blue", "red"]
    torch.testing.assert_close(told.check().saliency(), resize(told.saliency((4, 4)), (16, 16)))


def test_the_paper_is_cited():
    assert "1512.04150" in CAM.card.citation and CAM.card.claim == "exact"
