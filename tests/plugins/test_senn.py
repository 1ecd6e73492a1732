"""SENN, by its formulas: each is worked out again here, slowly and literally."""

import copy
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from attrs import evolve
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

import explainkit as ek
from explainkit.backbones import SmallBackbone, mixes_images
from explainkit.data.images import ArraySplit, Batch
from explainkit.data.table import table
from explainkit.errors import BindError
from explainkit.testing import tiny_data, tiny_images
from explainkit.training import Trainer
from explainkit_senn.concepts import ConvConceptizer, IdentityConceptizer
from explainkit_senn.grounding import ground
from explainkit_senn.lenet import LeNet
from explainkit_senn.model import (
    BEST,
    STRIP,
    ImageParametrizer,
    SENNNetwork,
    Standardise,
    TableParametrizer,
)
from explainkit_senn.robustness import exact, instability, local_lipschitz, probed
from explainkit_senn.trainer import reconstruction, robustness, senn_loss, sparsity


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def of_images(concepts=4, classes=3, channels=3, constant=False, dropout=0.0, seed=0, **settings):
    """For images of 16 pixels, batch norms at rest, in double precision."""
    torch.manual_seed(seed)
    backbone = SmallBackbone(widths=(6, 8), strides=(1, 2))
    parametrizer = ImageParametrizer(backbone, concepts + constant, classes, dropout=dropout)
    for module in parametrizer.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it had seen data
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    made = SENNNetwork(
        ConvConceptizer(concepts, channels, (16, 16), width=6), parametrizer, concepts, classes, (16, 16),
        channels=channels, constant=constant, **settings,
    )  # fmt: skip
    made.steady()
    with torch.no_grad():  # as if it had been grounded
        made.grounds.spread.uniform_(0.5, 2)
    return made.double().eval()


def of_rows(features=5, classes=3, constant=False, dropout=0.0, seed=0, **settings):
    torch.manual_seed(seed)
    ready = Standardise(torch.randn(features), torch.rand(features) + 0.5)
    parametrizer = TableParametrizer(features, features + constant, classes, widths=(7, 6), dropout=dropout)
    made = SENNNetwork(
        IdentityConceptizer(), parametrizer, features, classes, (features,), ready=ready, constant=constant,
        **settings,
    )  # fmt: skip
    return made.double().eval()


NETWORKS = {
    "images": lambda **more: (of_images(**more), drawn(3, 3, 16, 16)),
    "grey images": lambda **more: (of_images(channels=1, **more), drawn(3, 3, 16, 16)),
    "images, a constant": lambda **more: (of_images(constant=True, **more), drawn(3, 3, 16, 16)),
    "rows": lambda **more: (of_rows(**more), 3 * drawn(6, 5)),
    "rows, a constant": lambda **more: (of_rows(constant=True, **more), 3 * drawn(6, 5)),
}
any_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


@cache
def fitted():
    return ek.explainer("senn", preset="tiny").fit(tiny_data(), device="cpu", progress=False)


@cache
def wine():
    pytest.importorskip("sklearn")
    data = ek.dataset("wine")
    return ek.explainer("senn", preset="table", settle=30).fit(data, device="cpu", progress=False), data


def learned():
    """The fitted network, to be spoiled."""
    return copy.deepcopy(fitted().network)


def everything(data, split="train"):
    return data.split(split).batch(torch.arange(len(data.split(split))))


# the sum


@any_network
def test_concepts_times_weights_are_the_logit(make):
    net, inputs = make()

    parts = net.decompose(inputs)

    assert torch.equal(net(inputs), parts.logits)
    for n, c in product(range(len(inputs)), range(3)):
        weights = parts.weights_for(torch.full((len(inputs),), c))[n]
        bias = parts.bias_for(torch.full((len(inputs),), c))[n].item()
        total = bias + sum(h * w for h, w in zip(parts.scores[n].tolist(), weights.tolist(), strict=True))
        assert total == pytest.approx(parts.logits[n, c].item(), rel=1e-10, abs=1e-10)


@any_network
def test_in_training_the_explanation_comes_from_the_forward_of_the_logits(make):
    net, inputs = make(dropout=0.5, tracked=0.5)
    net.train()

    parts = net.decompose(inputs)

    assert len(parts.tracked) == round(0.5 * len(inputs))
    total = torch.einsum("nk,nkc->nc", parts.concepts, parts.theta)
    torch.testing.assert_close(total, parts.logits, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(net.decompose(inputs).logits, parts.logits)  # the masks differ


def test_the_weight_of_the_constant_concept_is_the_bias_and_no_unit():
    net, inputs = of_images(constant=True), drawn(3, 3, 16, 16)

    parts = net.decompose(inputs)

    assert (
        parts.scores.shape == (3, 4) and parts.theta.shape == (3, 5, 3) and (parts.concepts[:, 4] == 1).all()
    )
    assert torch.equal(parts.bias, parts.theta[:, 4])
    model = ek.explainer("senn", network=net.float(), classes=["a", "b", "c"])
    told = model.explain(inputs.float(), 1).check()
    assert len(told.units) == 4
    torch.testing.assert_close(told.base, parts.theta[:, 4, 1].float(), rtol=1e-4, atol=1e-5)
    plain = ek.explainer("senn", network=of_images().float(), classes=["a", "b", "c"])
    assert not plain.explain(inputs.float()).base.any()


def test_a_contrast_sums_to_the_margin():
    told = fitted().explain(tiny_images(), 0, against=2).check()

    torch.testing.assert_close(
        told.base + told.contributions.sum(1), told.logits[:, 0] - told.logits[:, 2], rtol=1e-4, atol=1e-4
    )


# the regulariser


def literally(net, inputs):
    """``sum_c |grad f_c - sum_k theta_kc grad h_k|^2``, one input and one Jacobian at a time."""

    def of(name):
        module = _Called(net, name)
        held = dict(module.named_parameters())
        return lambda one: functional_call(module, held, (one[None],))[0]

    total = []
    for one in net.ready(inputs):
        logits, concepts = (jacrev(of(name))(one).flatten(1) for name in ("logits", "concepts_of"))
        held = torch.einsum("kc,kd->cd", of("weights_of")(one), concepts)
        total.append((logits - held).square().sum())
    return torch.stack(total)


class _Called(nn.Module):
    """A method of a network, or its logits from ready inputs, as a module."""

    def __init__(self, net, name):
        super().__init__()
        self.net, self.name = net, name

    def forward(self, inputs):
        if self.name == "logits":
            return torch.einsum("nk,nkc->nc", self.net.concepts_of(inputs), self.net.weights_of(inputs))
        return getattr(self.net, self.name)(inputs)


def asked(net, inputs):
    """Theta with a graph to inputs, concepts without one, and those inputs."""
    ready = net.ready(inputs).detach()
    tracked = ready.clone().requires_grad_()
    return net.weights_of(tracked), net.concepts_of(ready), tracked


def gradients(net, value):
    found = torch.autograd.grad(value, list(net.parameters()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if slope is None else slope
        for (name, parameter), slope in zip(net.named_parameters(), found, strict=True)
    }


def assert_close(one, other, rtol):
    """All tensors, by the size of all of them."""
    scale = max(value.abs().max().item() for value in other.values())
    for name, value in other.items():
        torch.testing.assert_close(one[name], value, rtol=rtol, atol=rtol * scale, msg=name)


@any_network
def test_the_regulariser_is_that_of_literal_jacobians_of_the_logits(make):
    net, inputs = make()

    torch.testing.assert_close(exact(*asked(net, inputs)), literally(net, inputs), rtol=1e-9, atol=1e-12)


@any_network
def test_so_are_its_gradients_for_weights_and_concepts_alike(make):
    net, inputs = make()

    found = gradients(net, exact(*asked(net, inputs)).mean())

    assert_close(found, gradients(net, literally(net, inputs).mean()), 1e-9)
    assert found["parametrizer.weigh.weight"].abs().max() > 0
    if isinstance(net.conceptizer, ConvConceptizer):
        assert found["conceptizer.read.weight"].abs().max() > 0
        assert not any(found[name].any() for name in found if ".upwards." in name or ".draw." in name)


def test_in_single_precision_it_is_as_near_as_can_be():
    net, inputs = of_images().float(), drawn(3, 3, 16, 16).float()

    torch.testing.assert_close(exact(*asked(net, inputs)), literally(net, inputs), rtol=1e-4, atol=1e-8)


@any_network
def test_the_probe_is_right_in_the_mean_over_all_signs(make):
    net, inputs = make()
    whole = exact(*asked(net, inputs))

    every = [
        probed(*asked(net, inputs), torch.tensor(signs, dtype=torch.float64).expand(len(inputs), -1))
        for signs in product((-1, 1), repeat=3)
    ]

    torch.testing.assert_close(torch.stack(every).mean(0), whole, rtol=1e-10, atol=1e-12)
    assert_close(gradients(net, torch.stack(every).mean()), gradients(net, whole.mean()), 1e-10)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_for_one_class_any_probe_is_exact(sign):
    net, inputs = of_rows(classes=1), drawn(6, 5)

    one = probed(*asked(net, inputs), torch.full((6, 1), sign, dtype=torch.float64))

    torch.testing.assert_close(one, exact(*asked(net, inputs)), rtol=1e-12, atol=0)


def test_training_draws_probes_that_are_right_in_the_mean():
    net, inputs = of_rows(), drawn(8, 5)
    net.train()

    torch.manual_seed(0)
    drawn_ones = torch.stack([robustness(net.decompose(inputs)) for _ in range(2000)])

    whole = robustness(net.decompose(inputs), literally=True)
    assert drawn_ones.std() > 0
    torch.testing.assert_close(drawn_ones.mean(), whole, rtol=0.02, atol=0)


@any_network
def test_weights_that_stand_still_cost_nothing(make):
    net, inputs = make()
    moving = exact(*asked(net, inputs))
    with torch.no_grad():
        net.parametrizer.weigh.weight.zero_()

    theta, concepts, tracked = asked(net, inputs)

    assert (moving > 1e-6).all() and theta.std(0).max() < 1e-12 < concepts.std(0).max()
    assert exact(theta, concepts, tracked).max() < 1e-20
    assert probed(*asked(net, inputs), torch.ones(len(inputs), 3, dtype=torch.float64)).max() < 1e-20
    assert literally(net, inputs).max() < 1e-20


@pytest.mark.parametrize("shape", [(7,), (2, 6), (3, 4, 4)])
def test_inputs_of_any_rank_will_do(shape):
    torch.manual_seed(0)
    inputs = drawn(4, *shape).requires_grad_()
    weigh = nn.Linear(inputs[0].numel(), 6).double()
    concepts = drawn(4, 2, seed=1)

    found = exact(weigh(inputs.flatten(1)).unflatten(1, (2, 3)), concepts, inputs)

    slopes = weigh.weight.unflatten(0, (2, 3))  # (K, C, D)
    expected = [torch.einsum("k,kcd->cd", one, slopes).square().sum() for one in concepts]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-10, atol=0)


def test_weights_that_are_linear_in_the_concepts_cost_what_the_formula_says():
    rows, slopes = drawn(4, 5).requires_grad_(), drawn(5, 3, 5, seed=1)  # theta_kc = sum_d slopes_kcd x_d

    found = exact(torch.einsum("kcd,nd->nkc", slopes, rows), rows.detach(), rows)

    for n in range(4):
        literal = 0.0
        for c, d in product(range(3), range(5)):
            literal += sum(rows[n, k].item() * slopes[k, c, d].item() for k in range(5)) ** 2
        assert found[n].item() == pytest.approx(literal, rel=1e-9)


def test_log_probabilities_would_punish_weights_that_stand_still():
    net, inputs = of_rows(), drawn(4, 5)
    with torch.no_grad():
        net.parametrizer.weigh.weight.zero_()
    theta = net.weights_of(inputs)[0]

    slopes = jacrev(lambda x: (net.concepts_of(x[None]) @ theta).log_softmax(1)[0])(inputs[0])
    wrong = (slopes - theta.T).norm()  # of h(x) = x the Jacobian is the identity

    assert wrong > 0.1 and exact(*asked(net, inputs)).max() < 1e-20


def test_what_one_input_costs_hangs_on_no_other():
    net, inputs = of_images(), drawn(3, 3, 16, 16)
    net.train()

    among, other = exact(*asked(net, inputs)), exact(*asked(net, torch.cat([inputs[:1], 1 - inputs[1:]])))

    torch.testing.assert_close(among[0], other[0], rtol=1e-10, atol=0)
    assert (among[1:] != other[1:]).all()


def test_while_batch_norms_mix_images_no_slopes_are_asked():
    net = SENNNetwork(
        ConvConceptizer(2, 3, (16, 16)), ImageParametrizer(ek.backbone("tiny"), 2, 3), 2, 3, (16, 16)
    ).train()
    images = drawn(4, 3, 16, 16, dtype=torch.float32)

    assert net.decompose(images).tracked is None and robustness(net.decompose(images)) == 0
    net.steady()
    assert net.decompose(images).tracked is not None and robustness(net.decompose(images)) > 0
    with torch.no_grad():
        assert net.decompose(images).tracked is None
    assert net.eval().decompose(images).tracked is None and net.decompose(images).reconstruction is None


def test_a_parametrizer_that_cannot_come_to_rest_is_refused():
    parametrizer = nn.Sequential(nn.Linear(5, 15), nn.BatchNorm1d(15, track_running_stats=False))

    with pytest.raises(ek.InputError, match="'1' keeps no statistics"):
        SENNNetwork(IdentityConceptizer(), parametrizer, 5, 3, (5,))


# the other terms


def test_every_term_is_a_mean_over_the_batch():
    net = of_images(tracked=1.0).train()
    batch = Batch(images=drawn(3, 3, 16, 16), labels=torch.tensor([0, 1, 2]), ids=torch.arange(3))
    twice = Batch(images=batch.images.repeat(2, 1, 1, 1), labels=batch.labels.repeat(2), ids=torch.arange(6))

    once, again = (senn_loss(net, some, literally=True, smoothing=0.1) for some in (batch, twice))

    assert set(once) == {"cross_entropy", "sparsity", "reconstruction", "robustness"}
    for name, value in once.items():
        torch.testing.assert_close(again[name], value, rtol=1e-10, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_terms_are_those_of_loops(channels):
    net, images = of_images(channels=channels).train(), drawn(3, 3, 16, 16)
    labels = torch.tensor([2, 0, 1])

    terms = senn_loss(
        net, Batch(images=images, labels=labels, ids=labels), robustness_weight=0.7,
        reconstruction_weight=2.0, sparsity_weight=0.3, literally=True,
    )  # fmt: skip

    parts = net.decompose(images)
    errors, sums, costs = [], [], []
    for n in range(3):
        seen = images[n] if channels == 3 else images[n].mean(0, keepdim=True)
        errors += (parts.reconstruction[n] - seen).flatten().square().tolist()
        sums.append(sum(abs(value) for value in parts.scores[n].tolist()))
        costs.append(-parts.logits[n].log_softmax(0)[labels[n]].item())
    assert terms["reconstruction"].item() == pytest.approx(2 * sum(errors) / len(errors))
    assert terms["sparsity"].item() == pytest.approx(0.3 * sum(sums) / 3)
    assert terms["cross_entropy"].item() == pytest.approx(sum(costs) / 3)
    assert terms["robustness"].item() == pytest.approx(0.7 * literally(net, images).mean().item())


def test_the_conceptizer_is_trained_also_where_weights_are_held_stable():
    net, images = of_images().train(), drawn(3, 3, 16, 16)

    terms = senn_loss(net, Batch(images=images, labels=torch.arange(3), ids=torch.arange(3)))
    found = gradients(net, sum(terms.values()))

    assert terms["robustness"] > 0
    for name in ("conceptizer.upwards.0.weight", "conceptizer.draw.weight", "conceptizer.downwards.0.weight"):
        assert found[name].abs().max() > 0
    alone = gradients(net, reconstruction(net, parts := net.decompose(images), images))
    assert alone["conceptizer.upwards.0.weight"].abs().max() > 0 and parts.tracked is not None
    assert gradients(net, sparsity(net.decompose(images)))["conceptizer.read.weight"].abs().max() > 0


def test_a_table_has_nothing_to_be_drawn():
    net = of_rows().train()

    terms = senn_loss(net, Batch(images=drawn(4, 5), labels=torch.zeros(4).long(), ids=torch.arange(4)))

    assert set(terms) == {"cross_entropy", "sparsity", "robustness"}


# the conceptizer


@pytest.mark.parametrize("concepts", [1, 5, 20])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (24, 40), (32, 32), (96, 64)])
def test_what_is_drawn_has_the_size_of_the_image(concepts, size):
    made = ConvConceptizer(concepts, 3, size, width=4)

    found = made.encode(drawn(2, 3, *size, dtype=torch.float32))

    assert found.shape == (2, concepts)
    again = made.decode(found)
    assert again.shape == (2, 3, *size) and again.min() >= 0 and again.max() <= 1


@pytest.mark.parametrize("size", [(27, 27), (30, 32), (4, 4), (16,), (0, 0)])
def test_sizes_that_cannot_be_halved_twice_are_refused_in_words(size):
    with pytest.raises(ek.InputError, match=r"multiple of 4.*Resize"):
        ConvConceptizer(3, 3, size)


def test_images_of_another_size_are_refused_in_words():
    with pytest.raises(ek.InputError, match=r"\(32, 32\).*\(64, 64\).*Resize"):
        fitted().explain(torch.rand(1, 3, 64, 64))
    with pytest.raises(ek.InputError, match="16 pixels"):
        LeNet()(torch.rand(1, 3, 12, 28))


def test_a_grey_conceptizer_sees_the_mean_of_the_colours():
    net, images = of_images(channels=1), drawn(3, 3, 16, 16)

    torch.testing.assert_close(net.concepts_of(images), net.concepts_of(images.flip(1)))
    assert not torch.allclose(of_images().concepts_of(images), of_images().concepts_of(images.flip(1)))
    assert net.train().decompose(images).reconstruction.shape == (3, 1, 16, 16)


# phases


def phase_by_phase(model, data):
    """The network before the first phase, and after each one."""
    torch.manual_seed(0)
    net = model.build(ek.Task(classes=data.classes, size=data.size, data=data))
    yield None, copy.deepcopy(net)
    for phase in model.phases():
        Trainer(device="cpu", progress=False).run(net, data, [phase])
        yield phase.name, copy.deepcopy(net)


def changed(one, other):
    """Where values of the state are not what they were, by child."""
    after = other.state_dict()
    return {
        name.partition(".")[0]
        for name, value in one.state_dict().items()
        if name not in after or not torch.equal(value, after[name])
    }


def test_each_phase_moves_what_it_says_and_nothing_else():
    data = tiny_data()
    steps = list(phase_by_phase(ek.explainer("senn", preset="tiny"), data))

    moved = [(name, changed(one, other)) for (_, one), (name, other) in pairwise(steps)]

    assert moved == [
        ("learn", {"conceptizer", "parametrizer"}),
        ("steady", {"parametrizer"}),
        ("settle", {"conceptizer", "parametrizer", "grounds"}),
    ]
    names = [{name for name, _ in net.named_parameters()} for _, net in steps]
    assert names[2] == names[3]  # all of them learn while it settles, biases of folded convolutions too
    before, after = dict(steps[2][1].named_parameters()), dict(steps[3][1].named_parameters())
    assert not [name for name in before if torch.equal(before[name], after[name])]


def test_coming_to_rest_changes_no_logit():
    steps = dict(phase_by_phase(ek.explainer("senn", preset="tiny"), tiny_data()))

    assert mixes_images(steps["learn"].parametrizer) and mixes_images(steps["steady"].parametrizer) is None
    torch.testing.assert_close(
        steps["steady"](tiny_images()), steps["learn"](tiny_images()), rtol=1e-4, atol=1e-4
    )


def test_grounding_changes_the_grounds_alone():
    steps = dict(phase_by_phase(ek.explainer("senn", preset="tiny", settle=0), tiny_data()))

    assert changed(steps["steady"], steps["settle"]) == {"grounds"}


def test_the_robustness_term_begins_when_images_do_not_mix():
    model = fitted()

    terms = {epoch.phase: set(epoch.terms) for epoch in model.history}

    assert "robustness" not in terms["learn"] and "robustness" in terms["settle"]
    assert all(epoch.terms["robustness"] > 0 for epoch in model.history if epoch.phase == "settle")


def test_a_run_that_was_cut_off_ends_as_the_whole_one(tmp_path):
    class Cut:
        def log(self, epoch):
            if epoch.phase == "settle":
                raise KeyboardInterrupt

        def close(self):
            pass

    settings = {"device": "cpu", "progress": False, "checkpoints": tmp_path}
    model = ek.explainer("senn", preset="tiny", settle=2)
    with pytest.raises(KeyboardInterrupt):
        model.fit(tiny_data(), loggers=[Cut()], **settings)
    model = ek.explainer("senn", preset="tiny", settle=2).fit(tiny_data(), resume=True, **settings)

    whole = ek.explainer("senn", preset="tiny", settle=2).fit(tiny_data(), device="cpu", progress=False)

    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, model.network.state_dict()[name]), name


def test_the_same_seed_gives_the_same_network():
    again = ek.explainer("senn", preset="tiny").fit(tiny_data(), device="cpu", progress=False)

    assert torch.equal(again.predict(tiny_images()), fitted().predict(tiny_images()))


# grounds


def test_concepts_have_deviation_one_on_training_data_and_logits_stay():
    data = tiny_data()
    net = learned()
    net.grounds.spread.copy_(torch.tensor([0.1, 3.0, 1.0, 20.0]))
    images = everything(data).images
    before = net.decompose(images)

    with torch.no_grad():
        ground(net, data, batch_size=13)

    after = net.decompose(images)
    torch.testing.assert_close(after.scores.std(0), torch.ones(4), rtol=1e-4, atol=0)
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-4, atol=1e-4)
    ones = torch.ones(len(images), dtype=torch.long)
    torch.testing.assert_close(
        after.weights_for(ones) * after.scores, before.weights_for(ones) * before.scores, rtol=1e-4, atol=1e-4
    )
    assert not torch.allclose(after.weights_for(ones), before.weights_for(ones))
    torch.testing.assert_close(
        net.grounds.mean / net.grounds.spread, after.scores.mean(0), rtol=1e-3, atol=1e-4
    )
    levels = torch.tensor([0.05, 0.95])
    torch.testing.assert_close(net.grounds.range, after.scores.quantile(levels, 0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch_size", [5, 96])
def test_exemplars_are_the_images_with_most_and_least_of_a_concept(batch_size):
    net, data = learned(), tiny_data()
    with torch.no_grad():
        ground(net, data, batch_size)
        scores = net.decompose(everything(data).images).scores

    for k in range(4):
        ranked = sorted(range(96), key=lambda n, k=k: (-scores[n, k].item(), n))
        found = net.grounds.image[k].tolist()
        assert found[:BEST] == ranked[:BEST] and found[BEST:] == ranked[::-1][:BEST]
        for place, image in enumerate(found):
            picture = net.grounds.picture[k * 2 * BEST + place]
            assert torch.equal(picture, data.train.images[image])
            assert net.grounds.label[k, place] == data.train.labels[image]


def test_of_images_with_as_much_of_it_the_first_is_kept():
    data = tiny_data()
    twice = ArraySplit(
        images=data.train.images[:48].repeat(2, 1, 1, 1), labels=data.train.labels[:48].repeat(2)
    )
    net = learned()

    with torch.no_grad():
        ground(net, evolve(data, splits={**data.splits, "train": twice}), batch_size=96)

    for best in net.grounds.image[:, :BEST].tolist():
        assert best[1] == best[0] + 48


def test_with_few_training_images_there_are_few_exemplars():
    data = tiny_data()
    few = ArraySplit(images=data.train.images[:3], labels=data.train.labels[:3])
    model = ek.explainer("senn", preset="tiny", batch_size=2)

    model.fit(evolve(data, splits={**data.splits, "train": few}), device="cpu", progress=False)

    assert [len(found) for found in model.units.exemplars] == [2 * 3 + STRIP] * 4


def test_a_concept_is_drawn_from_little_to_much_of_it():
    net = fitted().network
    grounds = net.grounds

    for k, step in product(range(4), range(STRIP)):
        concepts = grounds.mean / grounds.spread
        concepts[k] = torch.lerp(grounds.range[0, k], grounds.range[1, k], step / (STRIP - 1))
        with torch.no_grad():
            picture = net.conceptizer.decode((concepts * grounds.spread)[None])[0]
        gap = (picture * 255).round() - grounds.drawn[k * STRIP + step].float()
        assert gap.abs().max() <= 1


def test_a_dead_concept_is_no_division_by_zero():
    net = learned()
    with torch.no_grad():
        for layer in net.conceptizer.downwards:
            if isinstance(layer, nn.Conv2d):
                layer.weight.zero_()
        ground(net, tiny_data())

    assert (net.grounds.spread == 1).all() and net(tiny_images()).isfinite().all()


def test_exemplars_tell_what_they_are_and_survive_saving(tmp_path):
    model = fitted()

    again = ek.load(ek.save(model, tmp_path / "model"))

    for one, other in zip(model.units.exemplars, again.units.exemplars, strict=True):
        assert [item.split for item in one] == ["train"] * 5 + ["train, least of it"] * 5 + ["drawn"] * 5
        for this, that in zip(one, other, strict=True):
            assert (this.id, this.label, this.split) == (that.id, that.label, that.split)
            assert torch.equal(this.image, that.image)
    assert again.explain(tiny_images())[0].sentence() == model.explain(tiny_images())[0].sentence()
    assert torch.equal(
        again.explain(tiny_images()).notes["instability"], model.explain(tiny_images()).notes["instability"]
    )


# the certificate


@any_network
def test_instability_is_that_of_literal_jacobians(make):
    net, inputs = make()
    targets = torch.arange(len(inputs)) % 3

    tracked = net.ready(inputs).detach().requires_grad_()
    found = instability(net.weights_of(tracked), net.concepts_of(tracked), tracked, targets)

    for n, c in enumerate(targets.tolist()):
        one = net.ready(inputs)[n]
        logits = jacrev(lambda x: _Called(net, "logits")(x[None])[0])(one)[c].flatten()
        concepts = jacrev(lambda x: net.concepts_of(x[None])[0])(one).flatten(1)
        drift = logits - net.weights_of(one[None])[0, :, c] @ concepts
        assert found[n].item() == pytest.approx((drift.norm() / logits.norm()).item(), rel=1e-8)


def test_instability_is_that_of_finite_differences():
    net, rows = of_rows(), drawn(2, 5)
    tracked = net.ready(rows).detach().requires_grad_()
    targets, step = torch.tensor([0, 2]), 1e-5
    found = instability(net.weights_of(tracked), net.concepts_of(tracked), tracked, targets)

    for n, c in enumerate(targets.tolist()):
        one = net.ready(rows)[n]
        held = net.weights_of(one[None])[0, :, c]
        slopes, drifts = [], []
        for d in range(5):
            ends = [one + sign * step * torch.eye(5, dtype=torch.float64)[d] for sign in (1, -1)]
            logit = [_Called(net, "logits")(end[None])[0, c] for end in ends]
            linear = [(net.concepts_of(end[None])[0] * held).sum() for end in ends]
            slopes.append((logit[0] - logit[1]).item() / 2 / step)
            drifts.append(slopes[-1] - (linear[0] - linear[1]).item() / 2 / step)
        assert found[n].item() == pytest.approx(np.linalg.norm(drifts) / np.linalg.norm(slopes), rel=1e-5)


@pytest.mark.parametrize("make", [of_rows, of_images])
def test_instability_is_zero_where_weights_stand_still(make):
    net = make().float()
    with torch.no_grad():
        net.parametrizer.weigh.weight.zero_()
    model = ek.explainer("senn", network=net, classes=["a", "b", "c"])

    told = model.explain(torch.rand(4, *((5,) if make is of_rows else (3, 16, 16))))

    assert told.notes["instability"].tolist() == [0, 0, 0, 0]


def test_the_certificate_is_told_for_the_target_and_can_be_left_out():
    model, images = fitted(), tiny_images()
    of_zero, of_one = (model.explain(images, target).notes["instability"] for target in (0, 1))

    assert of_zero.shape == (6,) and (of_zero > 0).all() and not torch.allclose(of_zero, of_one)
    net = model.network
    tracked = images.clone().requires_grad_()
    found = instability(
        net.weights_of(tracked), net.concepts_of(tracked), tracked, torch.ones(6, dtype=torch.long)
    )
    torch.testing.assert_close(found, of_one, rtol=1e-4, atol=1e-6)
    quiet = ek.explainer("senn", network=net, classes=model.classes, certify=False)
    assert not quiet.explain(images).notes


# stability, measured


def test_weights_that_stand_still_have_no_slope():
    rows = drawn(4, 5)

    found = local_lipschitz(lambda x: 0 * x + 2, lambda x: x, rows)

    assert found.tolist() == [0, 0, 0, 0]


def test_weights_that_are_the_concepts_have_slope_one():
    found = local_lipschitz(lambda x: x, lambda x: x, drawn(4, 5))

    torch.testing.assert_close(found, torch.ones(4, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_the_search_finds_the_steepest_direction_of_a_linear_map():
    slopes = torch.diag(torch.tensor([0.1, 0.2, 3.0], dtype=torch.float64))

    found = local_lipschitz(lambda x: x @ slopes, lambda x: x, drawn(4, 3), steps=60)

    assert (found <= 3 + 1e-6).all() and (found > 2.8).all()


def test_what_is_searched_is_as_stable_in_any_company():
    net, images = of_images(), drawn(3, 3, 16, 16)

    def theta(inputs):
        return net.weights_of(inputs)[..., 0]

    found = local_lipschitz(theta, net.concepts_of, images, steps=4)

    assert (found > 0).all() and torch.equal(found, local_lipschitz(theta, net.concepts_of, images, steps=4))
    assert (local_lipschitz(theta, net.concepts_of, images, steps=8) >= found - 1e-12).all()


# tables


def test_a_table_is_learned_and_explained_by_its_columns(tmp_path):
    model, data = wine()
    batch = everything(data, "test")

    told = model.explain(batch).check()

    assert model.evaluate(data, ("test",))["test"]["accuracy"] > 0.9
    assert told.units.names == data.features and told.units.kind == "feature" and told.of_rows
    assert any(name in told[0].sentence() for name in data.features)
    standard = (batch.images - everything(data).images.mean(0)) / everything(data).images.std(0)
    scale = model.network.grounds.spread
    torch.testing.assert_close(told.scores, standard / scale, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(scale, torch.ones(13), rtol=1e-3, atol=0)
    ek.report([told[:2]], tmp_path / "why.html")
    page = (tmp_path / "why.html").read_text()
    assert told.units.names[told[0].strongest(1)[0].unit] in page and "nstability" in page
    texts = [label.get_text() for axes in told[0].figure().axes for label in axes.get_yticklabels()]
    assert set(texts) & set(data.features)


def test_a_table_comes_back_from_its_folder(tmp_path):
    model, data = wine()
    rows = everything(data, "test").images

    again = ek.load(ek.save(model, tmp_path / "model"))

    assert again.explains_rows and again.units.names == data.features
    told = again.explain(rows.numpy())
    assert torch.equal(told.contributions, model.explain(rows).contributions)
    path = told.save(tmp_path / "told.safetensors")
    assert [item.sentence() for item in ek.Explanations.load(path)] == [item.sentence() for item in told]


def test_a_bound_network_of_a_table_explains_rows():
    model, data = wine()

    bound = ek.explainer("senn", network=model.network, classes=data.classes)

    rows = everything(data, "test").images
    assert bound.size == (13,) and bound.units.names[0] == "column 1"
    assert torch.equal(bound.explain(rows).contributions, model.explain(rows).contributions)


def test_the_scale_of_a_column_is_no_matter():
    model, data = wine()
    other = copy.deepcopy(model.network)
    factor = torch.logspace(-6, 6, 13)
    other.ready.mean.mul_(factor)
    other.ready.spread.mul_(factor)
    rows = everything(data, "test").images

    torch.testing.assert_close(other(rows * factor), model.network(rows), rtol=1e-3, atol=1e-3)


def test_a_column_that_never_changes_is_no_division_by_zero():
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    rows[:, 1] = 7
    data = table(rows, (rows[:, 0] > 0).astype(int))
    model = ek.explainer("senn", preset="table", settle=2).fit(data, device="cpu", progress=False)

    told = model.explain(torch.tensor([[1.0, 9.0, 0.0]])).check()

    assert told.scores[0, 1] == pytest.approx(2) and told.contributions.abs().max() < 100


@pytest.mark.parametrize(
    "rows", [torch.rand(2, 12), torch.rand(13), torch.ones(2, 13).long(), torch.full((2, 13), torch.nan)]
)
def test_rows_of_another_table_are_refused_in_words(rows):
    with pytest.raises(ek.InputError, match=r"Expected (float|finite) rows"):
        wine()[0].explain(rows)


def test_architectures_of_places_refuse_tables():
    with pytest.raises(ek.InputError, match="'senn', take tables"):
        ek.explainer("cam").fit(wine()[1])


# presets and settings


@pytest.mark.parametrize("preset", ek.explainer("senn").presets)
def test_every_preset_builds_and_has_phases(preset):
    model = ek.explainer("senn", preset=preset)
    shape = {"table": (4,), "paper": (3, 28, 28), "mnist": (3, 28, 28)}.get(preset, (3, 64, 64))

    net = model.build(ek.Task(classes=3, size=shape[-2:]))

    assert net(torch.rand(2, *shape)).shape == (2, 3)
    assert [phase.name for phase in model.phases()][-2:] == ["steady", "settle"]


def test_the_papers_network_learns_from_grey_images_of_28_pixels():
    data = tiny_data(size=28)
    model = ek.explainer("senn", preset="paper", settle=1, batch_size=48)

    model.fit(data, device="cpu", progress=False)

    assert set(model.history[-1].terms) == {"cross_entropy", "sparsity", "reconstruction", "robustness"}
    assert model.network.parametrizer.cells == 16 and model.network.channels == 1
    told = model.explain(everything(data, "test")).check()
    bounded = model.network.parametrizer(everything(data, "test").images)
    assert bounded.abs().max() < 1 and told.units.exemplars[0][-1].image.shape == (3, 28, 28)


def test_a_network_with_batch_norms_elsewhere_comes_to_rest_and_back_from_its_state():
    pytest.importorskip("torchvision")
    torch.manual_seed(0)

    def made():
        parametrizer = ImageParametrizer(ek.backbone("torchvision/resnet18"), 2, 3)
        return SENNNetwork(ConvConceptizer(2, 3, (32, 32)), parametrizer, 2, 3, (32, 32), tracked=1.0)

    net, images = made().eval(), tiny_images()[:2]
    before = net(images)

    net.steady()

    torch.testing.assert_close(net(images), before, rtol=1e-3, atol=1e-3)
    assert mixes_images(net) is None and robustness(net.train().decompose(images)) > 0
    again = made()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(images), net.eval()(images))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"concepts": 0}, "concepts"), ({"channels": 2}, "channels"), ({"tracked": 1.5}, "tracked"),
        ({"robustness": -1.0}, "robustness"), ({"sparsity": float("inf")}, "sparsity"),
        ({"dropout": 2.0}, "dropout"), ({"learn": -1}, "learn"), ({"batch_size": 0}, "batch_size"),
        ({"concepts": 2.5}, "concepts"), ({"robustness": "much"}, "robustness"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_in_words(settings, word):
    with pytest.raises(ek.InputError, match=f"Expected {word} of SENN"):
        ek.explainer("senn", **settings)


def test_networks_of_another_kind_are_refused():
    with pytest.raises(BindError, match="Expected a SENNNetwork; got Linear"):
        ek.explainer("senn", network=nn.Linear(3, 3), classes=["a", "b", "c"])


# pictures


def test_drawing_shows_sum_examples_strip_and_certificate():
    told = fitted().explain(tiny_images())

    figure = told[0].figure()
    figure.canvas.draw()

    labels = [axes.get_xlabel() for axes in figure.axes]
    assert any(f"{told[0].notes['instability']:.2f} of the slope" in label for label in labels)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    strongest = told[0].strongest(1)[0]
    assert strongest.words in texts and f"{strongest.contribution:+.2f}" in texts


def test_the_cross_entropy_is_of_logits():
    net, batch = of_rows(), Batch(images=drawn(4, 5), labels=torch.tensor([0, 1, 2, 0]), ids=torch.arange(4))

    found = senn_loss(net.train(), batch)["cross_entropy"]

    assert found.item() == pytest.approx(F.cross_entropy(net(batch.images), batch.labels).item())
    assert net(batch.images).exp().sum(1).sub(1).abs().min() > 1e-3  # no log-probabilities


def test_concepts_of_images_begin_at_mean_1_and_deviation_1():
    data = tiny_data()
    torch.manual_seed(0)
    task = ek.Task(classes=data.classes, size=data.size, data=data)
    net = ek.explainer("senn", preset="tiny").build(task).eval()

    with torch.no_grad():
        concepts = net.concepts_of(everything(data, "train").images)

    torch.testing.assert_close(concepts.mean(0), torch.ones(4), atol=0.02, rtol=0)
    torch.testing.assert_close(concepts.std(0), torch.ones(4), atol=0.02, rtol=0)
