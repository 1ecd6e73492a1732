"""Counterfactuals: the point, the picture that is encoded again, and their words."""

import pytest
import torch
from plugin_cases import assert_near
from prototypednn_networks import fitted

import explainkit as ek
from explainkit.errors import InputError, UnknownNameError
from explainkit.testing import fitted_example, tiny_dataset, tiny_images
from explainkit_prototypednn.explainer import PrototypeDNN
from explainkit_prototypednn.latent_edits import LatentEdit
from explainkit_prototypednn.latent_moves import nearest_images
from explainkit_prototypednn.model import PrototypeDNNNetwork, squared_distances

METHOD = "prototype-dnn/latent"


@pytest.fixture(scope="module")
def model():
    return fitted_example("prototype-dnn")


def test_distances_are_never_edited_on_their_own(model):
    assert model.counterfactual_methods() == ("region-swap", METHOD)
    for method in ("score-edit", "csg-cnn/class-ablation"):
        with pytest.raises(UnknownNameError, match=f"PrototypeDNN has no counterfactual method '{method}'"):
            model.counterfactual(tiny_images(), method=method)


def test_the_method_is_for_this_architecture_alone():
    assert METHOD not in fitted_example("cam").counterfactual_methods()
    assert "score-edit" in fitted_example("cam").counterfactual_methods()


def test_all_distances_after_a_move_are_those_of_one_point(model):
    moves = model.latent_moves(tiny_images())
    network = model.network

    assert_near(moves.distances_after, squared_distances(moves.after, network.prototypes))
    assert_near(moves.logits, moves.distances_after @ network.head.weight.T)
    assert moves.holds.all() and moves.after.min() >= 0
    assert_near(moves.lengths, (moves.after - moves.before).norm(dim=1), scale=moves.before)
    assert (moves.lengths >= moves.lower_bound * (1 - 1e-5)).all()


def test_the_picture_is_decoded_encoded_again_and_asked(model):
    images = tiny_images()
    moves = model.latent_moves(images)

    with torch.no_grad():
        pictures = model.network.pictures(moves.after)
        logits = model.network(pictures)

    assert_near(moves.pictures, pictures)
    assert_near(moves.picture_logits, logits)
    targets = model.predict(images).topk(2, 1).indices[:, 1]
    assert torch.equal(moves.picture_holds, logits.argmax(1) == targets)


def test_success_is_that_of_the_picture_and_not_of_the_point(model):
    images = tiny_images()
    moves = model.latent_moves(images, attempts=1)
    counterfactuals = model.counterfactual(images, method=METHOD, attempts=1)

    assert torch.equal(counterfactuals.success, moves.picture_holds)
    assert moves.holds.all() and not moves.picture_holds.all()  # else this test shows nothing
    for item, is_held in zip(counterfactuals, moves.picture_holds.tolist(), strict=True):
        assert ("the network says so" in item.sentence()) == is_held
        assert ("is not, once it is encoded again" in item.sentence()) != is_held
    kept = counterfactuals.edits[METHOD].images[~moves.picture_holds]
    assert torch.equal(kept, images[~moves.picture_holds])


def test_larger_leads_are_tried_until_the_picture_holds(monkeypatch):
    """Latent points are pixels, and the decoder draws them darker: a point must go past 0.5 / 0.7."""
    made = PrototypeDNNNetwork(2, 2, (4, 4), width=1, latent_channels=1, layers=1)
    with torch.no_grad():
        convolution = made.encoder.layers[0]
        convolution.weight.zero_(), convolution.bias.zero_()
        convolution.weight[0, :, 1, 1] = 1 / 3
        made.prototypes.copy_(torch.tensor([[0.2], [0.8]]).expand(-1, 4))
        made.head.weight.copy_(-torch.eye(2))

    def darker(network, latent):
        pixels = torch.zeros(len(latent), 3, 4, 4)
        pixels[:, :, ::2, ::2] = 0.7 * latent.unflatten(1, (1, 2, 2))
        return pixels

    monkeypatch.setattr(PrototypeDNNNetwork, "pictures", darker)
    model = PrototypeDNN.from_network(made)
    images = torch.full((2, 3, 4, 4), 0.3)

    first, last = (model.latent_moves(images, attempts=attempts) for attempts in (1, 12))

    # (s - 0.2)^2 - (s - 0.8)^2 = 1.2 s - 0.6 of each of four pixels is the lead
    assert first.holds.all() and not first.picture_holds.any()
    assert_near(first.after, torch.full((2, 4), (0.6 + 0.01 / 4) / 1.2))
    assert last.holds.all() and last.picture_holds.all()
    assert_near(last.margins, torch.full((2,), 0.01 * 2**7))
    assert_near(last.after, torch.full((2, 4), (0.6 + 1.28 / 4) / 1.2))


def test_an_image_that_is_the_target_already_stays_as_it_is(model):
    images = tiny_images()
    counterfactuals = model.counterfactual(images, model.predict(images).argmax(1), METHOD)

    assert torch.equal(counterfactuals.edits[METHOD].images, images)
    assert all(item.sentence().endswith("already.") for item in counterfactuals)


def test_a_target_that_no_point_reaches_is_said_to_be_out_of_reach():
    model = fitted()
    with torch.no_grad():  # class 2 is class 0 less a distance: never ahead of it
        weight = model.network.head.weight
        weight[2] = weight[0]
        weight[2, 0] -= 1
    images = tiny_images()[:2]

    counterfactuals = model.counterfactual(images, ["square 2"] * 2, METHOD)

    assert model.latent_moves(images, ["square 2"] * 2).is_excluded.all()
    for item in counterfactuals:
        assert item.sentence().startswith("square 2 is out of reach")
        assert "no latent point" in item.sentence() and not item.success
    assert torch.equal(counterfactuals.edits[METHOD].images, images)
    again = ek.Counterfactuals.from_json(counterfactuals.to_json())
    assert [item.sentence() for item in again] == [item.sentence() for item in counterfactuals]


def test_the_nearest_image_is_that_of_a_literal_search(model):
    images, dataset = tiny_images(), tiny_dataset()
    explanations = model.explain(images)
    latent = explanations.decomposition.extras["latent"]
    targets = explanations.logits.topk(2, 1).indices[:, 1]
    goals = ek.questions.goals.goals_for(model.decision, targets, model.classes, len(images))

    found = nearest_images(model, dataset, latent, goals, batch_size=17)

    bank = dataset.train.batch(torch.arange(len(dataset.train)))
    known = model.explain(bank)
    for n, target in enumerate(targets.tolist()):
        taken = [i for i in range(len(bank)) if int(known.logits[i].argmax()) == target]
        apart = [float((known.decomposition.extras["latent"][i] - latent[n]).norm()) for i in taken]
        assert found.ids[n] == taken[min(range(len(taken)), key=apart.__getitem__)]
        assert found.distances[n].item() == pytest.approx(min(apart), rel=1e-4)
        assert torch.equal(found.images[n], bank.images[found.ids[n]])


def test_the_nearest_image_is_beside_the_edit_and_in_its_sentence(model):
    counterfactuals = model.counterfactual(tiny_images(), method=METHOD)
    without = model.counterfactual(tiny_images(), method=METHOD, with_nearest=False)

    assert counterfactuals.edits[METHOD].sources.shape == tiny_images().shape
    assert without.edits[METHOD].sources is None
    assert "nearest that is taken for" in counterfactuals[0].sentence()
    assert "nearest" not in without[0].sentence()
    titles = [axes.get_title() for axes in counterfactuals[0].figure().axes]
    assert any(title.startswith("nearest image of the data taken for") for title in titles)
    assert "nearest image of the data taken for" in counterfactuals[0]._repr_html_()


def test_an_image_of_a_class_that_the_network_never_says_is_said_to_be_missing(model):
    dataset = tiny_dataset()
    images = dataset.test.batch(torch.tensor([0, 3])).images  # both of one class
    target = [(int(model.predict(images)[0].argmax()) + 1) % 3] * 2
    bank = ek.Batch(images=images, labels=torch.zeros(2, dtype=torch.long), ids=torch.arange(2))

    counterfactuals = model.counterfactual(images, torch.tensor(target), METHOD, distractors=bank)

    assert counterfactuals.edits[METHOD].sources is None
    assert "no image of the data is taken for" in counterfactuals[0].sentence()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": 0.0}, "Expected a margin above 0, in logits; got 0.0"),
        ({"margin": True}, "Expected a margin above 0"),
        ({"attempts": 0}, "Expected attempts as a whole number from 1 on; got 0"),
        ({"with_nearest": 1}, "Expected with_nearest as True or False; got 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused_in_words(settings, message):
    with pytest.raises(InputError, match=message):
        LatentEdit(**settings)
