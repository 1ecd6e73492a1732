import sys

import numpy as np
import pytest
import torch

import explainkit as ek
from explainkit.data.datasets.tables import table


def rows(count=40, columns=3):
    return np.random.default_rng(0).normal(size=(count, columns))


def labels(count=40, classes=2):
    return np.arange(count) % classes


def same(one, other):
    return all(
        torch.equal(one.split(name).rows, other.split(name).rows)
        and torch.equal(one.split(name).labels, other.split(name).labels)
        for name in one.splits
    )


def test_each_row_is_in_one_split_in_its_own_units():
    values = rows()

    dataset = table(values, labels())

    stored = torch.cat([split.rows for split in dataset.splits.values()])
    assert sorted(map(tuple, stored.tolist())) == sorted(map(tuple, values.astype(np.float32).tolist()))
    assert stored.dtype == torch.float32 and dataset.train.labels.dtype == torch.int64


@pytest.mark.parametrize("counts", [(5, 5), (40, 7), (100, 50, 10)])
def test_every_class_is_in_every_split_at_its_share(counts):
    targets = np.repeat(np.arange(len(counts)), counts)

    dataset = table(rows(len(targets)), targets)

    for label, count in enumerate(counts):
        train, validation, test = ((split.labels == label).sum().item() for split in dataset.splits.values())
        assert train + validation + test == count
        assert abs(train - 0.7 * count) <= 1 and abs(test - 0.2 * count) <= 1
        assert min(train, test) > 0


def test_labels_stay_with_their_rows():
    targets = labels(classes=4)
    values = rows()
    values[:, 0] = targets

    dataset = table(values, targets)

    for split in dataset.splits.values():
        assert torch.equal(split.rows[:, 0].long(), split.labels)


def test_the_split_depends_on_the_seed_alone():
    assert same(table(rows(), labels(), seed=3), table(rows(), labels(), seed=3))
    assert not same(table(rows(), labels(), seed=3), table(rows(), labels(), seed=4))


def test_a_batch_has_the_rows_of_its_ids_in_their_order():
    dataset = table(rows(), labels())

    batch = dataset.train.batch(torch.tensor([5, 0, 5]))

    assert torch.equal(batch.images, dataset.train.rows[[5, 0, 5]]) and len(batch) == 3
    assert torch.equal(batch.labels, dataset.train.labels[[5, 0, 5]]) and batch.ids.tolist() == [5, 0, 5]
    assert sum(len(batch) for batch in dataset.batches("train", 7)) == len(dataset.train)


def test_names_are_counted_off_where_there_are_none():
    dataset = table(rows(), labels())

    assert dataset.features == ("column 0", "column 1", "column 2") and dataset.classes == (
        "class 0",
        "class 1",
    )
    assert dataset.size == (3,)
    named = table(rows(), labels(), features=["a", "b", "c"], classes=["no", "yes"], name="mine")
    assert named.features == ("a", "b", "c") and named.classes == ("no", "yes") and named.name == "mine"


@pytest.mark.parametrize(
    ("values", "targets", "message"),
    [
        (rows()[0], labels(), r"rows \(N, F\)"),
        (rows(), labels(39), r"\(40, 3\) and \(39,\)"),
        (rows()[:0], labels()[:0], "rows"),
        (rows()[:, :0], labels(), "rows"),
        (np.where(rows() > 2, np.nan, rows()), labels(), "finite"),
        (rows() * 1e39, labels(), "finite"),
        ([["a", "b"]] * 40, labels(), "numbers"),
        ([[1, 2], [3]] * 20, labels(), "numbers"),
        (rows(), labels() * 0.5, "whole numbers"),
        (rows(), labels().astype(bool), "whole numbers"),
        (rows(), np.array(["no", "yes"] * 20), "whole numbers"),
        (rows(), labels() - 1, "from 0"),
        (rows(), labels() * 10**9, "five rows"),
        (rows(), labels() * 2, "five rows"),
        (rows(), np.array([0] * 36 + [1] * 4), "five rows"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_what_is_no_table_is_refused_in_words(values, targets, message):
    with pytest.raises(ek.InputError, match=message):
        table(values, targets)


@pytest.mark.parametrize("names", [{"features": ["a"]}, {"classes": ["a", "b", "c"]}])
def test_names_that_are_too_few_or_too_many_are_refused(names):
    with pytest.raises(ek.InputError, match="names of columns"):
        table(rows(), labels(), **names)


@pytest.mark.parametrize(
    ("name", "columns", "counts"), [("wine", 13, [59, 71, 48]), ("breast-cancer", 30, [212, 357])]
)
def test_the_bundled_tables_are_those_of_the_literature(name, columns, counts):
    pytest.importorskip("sklearn")

    dataset = ek.dataset(name)

    targets = torch.cat([split.labels for split in dataset.splits.values()])
    assert dataset.size == (columns,) and len(dataset.features) == columns
    assert targets.bincount().tolist() == counts and len(dataset.classes) == len(counts)
    assert not any("_" in word for word in (*dataset.features, *dataset.classes))
    assert same(dataset, ek.dataset(name)) and not same(dataset, ek.dataset(name, seed=1))


@pytest.mark.parametrize("name", ["wine", "breast-cancer"])
def test_without_scikit_learn_the_bundled_tables_say_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)

    with pytest.raises(ek.ExplainKitError, match=r"explainkit-sdk\[digits\]"):
        ek.dataset(name)
