"""torchvision's classifiers as backbones: every family, trained weights from disk, errors in words."""

import sys

import pytest
import torch
from torchvision import models

import explainkit as ek
from explainkit.errors import InputError, MissingPackageError, UnknownNameError
from explainkit.testing import tiny_dataset

FAMILIES = {  # channels and stride
    "alexnet": (256, 32),
    "convnext_tiny": (2 * 768, 32),
    "densenet121": (1024, 32),
    "efficientnet_b0": (2 * 1280, 32),
    "mobilenet_v3_small": (2 * 576, 32),
    "regnet_x_400mf": (400, 32),
    "resnet18": (512, 32),
    "shufflenet_v2_x0_5": (1024, 32),
    "squeezenet1_1": (512, 16),
    "swin_t": (2 * 768, 32),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_a_grid_that_is_never_negative(name):
    backbone = ek.backbone(f"torchvision/{name}").eval()

    with torch.no_grad():
        features = backbone(torch.rand(2, 3, 160, 128))

    channels, stride = FAMILIES[name]
    assert (backbone.channels, backbone.stride) == (channels, stride)
    assert features.shape[:2] == (2, channels) and (features >= 0).all()
    assert abs(features.shape[2] - 160 // stride) <= 1 and abs(features.shape[3] - 128 // stride) <= 1


def test_features_below_zero_are_kept_as_channels_of_their_own():
    torch.manual_seed(0)
    backbone = ek.backbone("torchvision/efficientnet_b0").eval()
    images = torch.rand(2, 3, 64, 64)

    with torch.no_grad():
        above, below = backbone(images).chunk(2, 1)
        plain = backbone.features((images - backbone.mean) / backbone.std)

    assert backbone.signed and (below > 0).any()
    assert torch.equal(above - below, plain) and not (above * below).any()


def test_the_tokens_of_a_vision_transformer_lie_where_they_came_from():
    backbone = ek.backbone("torchvision/vit_b_16", image_size=64).eval()
    with torch.no_grad():
        # only the patches' own content is handed on
        for name, parameter in backbone.features.tokens.named_parameters():
            if "layers" in name and ("out_proj" in name or "mlp.3" in name or "pos_embedding" in name):
                parameter.zero_()
        plain = backbone(torch.zeros(1, 3, 64, 64))
        changed = torch.zeros(1, 3, 64, 64)
        changed[:, :, 16:32, 48:64] = 1
        moved = (backbone(changed) - plain).abs().sum(1)[0]

    assert moved.shape == (4, 4) and backbone.stride == 16
    assert (moved > 1e-3).nonzero().tolist() == [[1, 3]]


def test_a_vision_transformer_says_which_size_it_takes():
    backbone = ek.backbone("torchvision/vit_b_16", image_size=64)

    with pytest.raises(InputError, match=r"Expected images of 64 x 64.*got \(32, 32\)"):
        backbone(torch.rand(1, 3, 32, 32))
    with pytest.raises(InputError, match="takes any size"):
        ek.backbone("torchvision/resnet18", image_size=64)
    with pytest.raises(InputError, match="cannot make vit_b_16 so"):
        ek.backbone("torchvision/vit_b_16", image_size=50)


def test_a_backbone_can_end_early():
    whole, early = ek.backbone("torchvision/resnet18"), ek.backbone("torchvision/resnet18", until="layer2")

    assert (early.channels, early.stride) == (128, 8) and whole.stride == 32
    assert not any(name.startswith("features.layer3") for name, _ in early.named_parameters())
    with pytest.raises(UnknownNameError, match=r"ResNet runs no layer 'layer22'\. Did you mean 'layer2'"):
        ek.backbone("torchvision/resnet18", until="layer22")


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="resnet18"):
        ek.backbone("torchvision/resnet19")
    with pytest.raises(
        UnknownNameError, match=r"no weights 'IMAGENET' for resnet18\. There are: IMAGENET1K_V1"
    ):
        ek.backbone("torchvision/resnet18", weights="IMAGENET")


def test_trained_weights_come_from_torchvisions_cache(monkeypatch, tmp_path):
    torch.manual_seed(3)
    trained = models.get_model("resnet18", weights=None)
    record = models.get_model_weights("resnet18")["DEFAULT"]
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(trained.state_dict(), folder / record.url.rpartition("/")[2])
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))

    backbone = ek.backbone("torchvision/resnet18", weights="DEFAULT")

    state = backbone.features.state_dict()
    assert torch.equal(state["layer4.1.conv2.weight"], trained.layer4[1].conv2.weight)
    assert backbone.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_weights_that_cannot_be_fetched_are_named_with_the_folder_to_put_them_in(monkeypatch, tmp_path):
    def closed(*arguments, **settings):
        raise OSError("no way out")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", closed)

    with pytest.raises(InputError, match=r"no way out.*Put the file resnet18-\w+\.pth into .*checkpoints"):
        ek.backbone("torchvision/resnet18", weights="DEFAULT")


@pytest.mark.parametrize("fault", [ImportError("no such file"), RuntimeError("operator nms does not exist")])
def test_a_broken_pair_of_torch_and_torchvision_is_reported(monkeypatch, fault):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "torchvision":
                raise fault

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])

    with pytest.raises(
        MissingPackageError, match="They go in pairs: pip install --upgrade torch torchvision"
    ):
        ek.backbone("torchvision/resnet18")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cam", "protopnet"])
def test_the_papers_settings_run(name, tmp_path):
    quick = {
        "cam": {"epochs": 1},
        "protopnet": {
            "warm_epochs": 1,
            "joint_epochs": 1,
            "rounds": 1,
            "prototypes_per_class": 2,
            "depth": 8,
        },
    }
    dataset = tiny_dataset(size=64)
    model = ek.explainer(name, preset="paper", weights=None, batch_size=48, **quick[name])

    model.fit(dataset, seed=0, device="cpu", progress=False)

    explanations = model.explain(dataset.test.batch(torch.arange(4)).images).check_additivity()
    loaded = ek.load(ek.save(model, tmp_path / name))
    assert torch.equal(loaded.explain(explanations.images).logits, explanations.logits)
    if name == "cam":  # stride 16, as the paper cuts it
        assert len(explanations.units) == 1024 and explanations.maps.shape[2:] == (4, 4)
        assert [epoch.phase for epoch in model.history] == ["all"]


def test_a_model_on_trained_weights_is_loaded_without_fetching_them_again(monkeypatch, tmp_path):
    model = ek.explainer("cam", backbone="torchvision/squeezenet1_1", epochs=1, batch_size=48)
    model.fit(tiny_dataset(size=64), device="cpu", progress=False)
    model.weights = "DEFAULT"  # as if it had begun with them
    folder = ek.save(model, tmp_path / "model")
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *arguments, **settings: 1 / 0)

    loaded = ek.load(folder)

    assert loaded.weights == "DEFAULT"


def test_a_gray_image_is_to_a_network_of_one_channel_what_it_is_in_color():
    torch.manual_seed(0)
    color = ek.backbone("torchvision/resnet18").eval()
    torch.manual_seed(0)
    gray = ek.backbone("torchvision/resnet18", in_channels=1).eval()
    gray.load_state_dict(
        {
            name: value
            for name, value in color.state_dict().items()
            if name not in ("mean", "std", "features.conv1.weight")
        }
        | {
            "mean": torch.zeros(1, 1, 1), "std": torch.ones(1, 1, 1),
            "features.conv1.weight": color.features.conv1.weight.sum(1, keepdim=True),
        }
    )  # fmt: skip
    color.mean.zero_()
    color.std.fill_(1.0)
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(gray(image), color(image.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_weights_of_color_are_shared_out_among_other_channels():
    torch.manual_seed(0)
    color = ek.backbone("torchvision/resnet18")
    torch.manual_seed(0)
    four = ek.backbone("torchvision/resnet18", in_channels=4)

    torch.testing.assert_close(
        four.features.conv1.weight.sum(1), color.features.conv1.weight.sum(1), rtol=1e-5, atol=1e-6
    )
