"""What CCNN says: how much of each phrase its filter found, where, and what that is worth to the class."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import torch
from attrs import define, field
from torch import Tensor

import explainkit as ek
from explainkit.data.captions.phrases import Phrasebook, phrasebook
from explainkit.data.captions.vectors import (
    WordVectors,
    phrase_vectors,
    phrase_words,
    read_vectors,
)
from explainkit.errors import InputError
from explainkit.explainers.inputs import InputSpec
from explainkit.networks.backbones import grid_size
from explainkit_ccnn.losses import guided_loss, head_loss
from explainkit_ccnn.model import CCNNNetwork

PHRASING = ek.Phrasing(
    measure="share", reasons=5, coverage=0.9, min_objection=0.01, noun="phrase", plural="phrases"
)
"""Phrases with their shares of all evidence, until they are 90 % of the evidence for the class, as in the
paper's explanations."""


class ConfoundedWarning(UserWarning):
    """Phrases that may not be learned apart from others, from what was said of the images."""


class SpeechlessWarning(UserWarning):
    """Classes of which nothing is said that tells them from others."""


@define(eq=False, kw_only=True)
class CCNN(ek.InterpretableExplainer[CCNNNetwork]):
    """Comprehensible CNN: guided by what people said of the training images.

    Parameters
    ----------
    backbone : str
        By name; fine grids of cells that see little tell small parts apart.
    weights : str or None
        Handed to it, for those that come trained.
    backbone_settings : mapping
        Its other settings, such as ``{"receptive_field": 27}`` for ``"local"``.
    vectors : str or None
        A file of word vectors, as those of GloVe: a word and its numbers a line. ``None``: words are hashed.
        Read by `fit` alone; what was read of it is saved with the network.
    phrases_per_class, min_count : int
        Phrases of a class at most; images of a class in which one must be said.
    min_doc_freq : float
        And the share of them. The paper has none; its 3 images were a tenth of a class.
    embedding_dim : int
        Length of the vectors that maps and phrases are compared by.
    first_epochs, guided_epochs, last_epochs : int
        Epochs: of the concept layer alone; of all but the last layer; of the last layer.
    lr, guided_lr, last_lr, weight_decay : float
        Learning rates of the three stages, at their peak, and weight decay.
    concept_weight : float
        Of uniqueness, semantic and counter loss together; 0 leaves filters without guidance.
    gain : float
        How sharply a filter's score is read as a probability.
    balanced : bool
        Weigh phrases that were mentioned and those that were not alike in sum.
    margin, counter_margin : float
        Of the semantic and of the counter loss.
    init_head_weight : float
        First weight between a class and its phrases.
    dropout, label_smoothing : float
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="CCNN",
        citation="Wickramanayake, Hsu, Lee; IJCNN 2021; arXiv:2101.03919",
        additivity="exact",
        unit_kind="phrases",
        learns_from="training images",
    )
    supports_labels: ClassVar[bool] = False
    network_type: ClassVar[type[CCNNNetwork]] = CCNNNetwork
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "standard": {"backbone": "small-fine"},
        "tiny": {
            "backbone": "tiny",
            "guided_epochs": 1,
            "last_epochs": 1,
            "min_count": 1,
            "phrases_per_class": 4,
            "embedding_dim": 4,
        },
        "paper": {
            "backbone": "torchvision/vgg16",
            "weights": "DEFAULT",
            "embedding_dim": 24,
            "first_epochs": 20,
            "guided_epochs": 50,
            "last_epochs": 20,
            "lr": 1e-3,
            "guided_lr": 1e-4,
            "last_lr": 1e-4,
            "weight_decay": 0.0,
            "gain": 1.0,
            "balanced": False,
            "min_doc_freq": 0.0,
            "margin": 1.0,
            "counter_margin": 0.5,
            "init_head_weight": 0.1,
            "dropout": 0.5,
            "label_smoothing": 0.0,
            "batch_size": 32,
            "lr_scheduler": "constant",
        },
    }

    backbone: str = "local"
    weights: str | None = None
    backbone_settings: Mapping[str, Any] = field(factory=dict)
    vectors: str | None = None
    phrases_per_class: int = 20
    min_count: int = 3
    min_doc_freq: float = 0.03
    embedding_dim: int = 12
    first_epochs: int = 0
    guided_epochs: int = 9
    last_epochs: int = 2
    lr: float = 4e-3
    guided_lr: float = 4e-3
    last_lr: float = 4e-3
    weight_decay: float = 0.05
    lr_scheduler: str = "one-cycle"
    concept_weight: float = 0.4
    gain: float = 5.0
    balanced: bool = True
    margin: float = 0.3
    counter_margin: float = 0.3
    init_head_weight: float = 1.0
    dropout: float = 0.0
    label_smoothing: float = 0.0
    batch_size: int = 64
    _phrasebook: Phrasebook | None = field(default=None, init=False, repr=False)
    _vectors: Tensor | None = field(default=None, init=False, repr=False)

    def build(self, task: ek.Task) -> CCNNNetwork:
        """The network of model.py, a filter a phrase of the training captions, or of the saved units."""
        backbone = ek.backbone(
            self.backbone, in_channels=task.channels, weights=self.weights, **self.backbone_settings
        )
        height, width = grid_size(backbone, task.size)
        if task.dataset is not None:
            self._phrasebook = book = self._find_phrases(task.dataset)
            _warn_of_limits(book, task.classes)
            of_classes, alike = book.of_classes, _confounded_indices(book)
            vectors = phrase_vectors(book.phrases, _word_vectors(book.phrases, self.vectors))
        elif self._vectors is not None:
            vectors = self._vectors
            of_classes = torch.zeros(len(vectors), len(task.classes), dtype=torch.bool)
            alike = torch.full((len(vectors),), -1)
        else:
            raise InputError("Expected captions to find phrases in: call fit(dataset).")
        return CCNNNetwork(
            backbone,
            of_classes,
            vectors,
            height * width,
            self.embedding_dim,
            self.init_head_weight,
            self.dropout,
            alike,
        )

    def phases(self) -> list[ek.Phase[Any]]:
        """The paper's three stages: filters alone, all but the last layer, the last layer."""
        if self._phrasebook is None:
            raise InputError("Expected the phrases of the training captions: call fit(dataset).")
        loss = partial(
            guided_loss, mentioned=self._phrasebook.of_images, concept_weight=self.concept_weight,
            gain=self.gain, balanced=self.balanced, margin=self.margin, counter_margin=self.counter_margin,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip
        common: dict[str, Any] = {"batch_size": self.batch_size, "optimizer_kwargs": {"betas": (0.9, 0.99)}}
        filters = ("concepts", "visual", "textual")
        decay = dict.fromkeys(("backbone", "concepts"), self.weight_decay) if self.weight_decay else 0.0
        plan: list[ek.Phase[Any]] = []
        if self.first_epochs:
            plan.append(
                ek.Phase("filters", self.first_epochs, loss, dict.fromkeys(filters, self.lr), **common)
            )
        plan.append(
            ek.Phase(
                "guided",
                self.guided_epochs,
                loss,
                dict.fromkeys(("backbone", *filters), self.guided_lr),
                weight_decay=decay,
                lr_scheduler=self.lr_scheduler,  # type: ignore[arg-type]
                **common,
            )
        )
        last = partial(head_loss, label_smoothing=self.label_smoothing)
        plan.append(ek.Phase("last", self.last_epochs, last, {"head": self.last_lr}, **common))
        return plan

    def describe_units(self, network: CCNNNetwork) -> ek.Units:
        """A unit a filter, which is its phrase."""
        count = network.head.in_features
        phrases = self._phrasebook.phrases if self._phrasebook is not None else None
        names = [f"filter {k}" for k in range(count)]
        return ek.Units(
            kind="phrase", names=names, phrases=phrases, pooling="mean", phrasing=PHRASING,
            receptive_field=network.backbone.field,  # filters are 1 x 1
        )  # fmt: skip

    def load_state(
        self,
        state: Mapping[str, Tensor],
        classes: Sequence[str],
        spec: InputSpec,
        units: ek.Units | None,
    ) -> Self:
        """As every explainer is restored; how many phrases there are, and their vectors, are in `state`."""
        vectors = state.get("vectors")
        if vectors is None or vectors.ndim != 2 or not vectors.numel():
            raise InputError("Expected the vectors (K, E) of the phrases of a saved CCNN; got none.")
        self._phrasebook, self._vectors = None, vectors
        try:
            return super().load_state(state, classes, spec, units)
        finally:
            self._vectors = None

    @property
    def confounded(self) -> dict[str, str]:
        """Phrases that may not have been learned apart from others, with the likest of those.

        Either both were chosen for the very same classes, or one was said nearly always with the other. It is
        known of the captions alone: where what the phrases speak of varies within classes, and independently,
        they can be distinguished nevertheless.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        network = self.network
        assert isinstance(network, CCNNNetwork)
        alike = network.alike.tolist()
        names = (self.units.phrases if self.units is not None else None) or ()
        return {str(names[k]): str(names[other]) for k, other in enumerate(alike) if 0 <= other < len(names)}

    def _find_phrases(self, dataset: ek.ImageDataset) -> Phrasebook:
        """The phrases of the training captions, which alone are looked at."""
        captions = []
        for batch in dataset.batches("train", 256):
            if batch.captions is None:
                raise InputError(
                    "Expected captions of the training images, to learn filters from; "
                    f"{dataset.name} has none."
                )
            captions += [caption.text for caption in batch.captions]
        return phrasebook(
            captions,
            dataset.train.labels,
            len(dataset.classes),
            phrases_per_class=self.phrases_per_class,
            min_count=self.min_count,
            min_doc_freq=self.min_doc_freq,
            synonyms=dataset.synonyms,
        )


def _warn_of_limits(book: Phrasebook, classes: Sequence[str]) -> None:
    """Warn the caller of `fit` of what these phrases cannot do."""
    has_phrases = book.of_classes.any(0).tolist()
    if without := [name for name, has_phrase in zip(classes, has_phrases, strict=True) if not has_phrase]:
        warnings.warn(
            f"The captions have no phrase that tells {_first_names(without)} from other classes: until the "
            "last layer is trained nothing supports them. Give more captions, or a smaller min_count=… or "
            "min_doc_freq=….",
            SpeechlessWarning,
            stacklevel=5,
        )
    if alike := book.confounded():
        pairs = _first_names([f"{phrase!r} (like {other!r})" for phrase, other in alike.items()])
        warnings.warn(
            f"{len(alike)} of {len(book)} phrases cannot be distinguished from another by captions: {pairs}. "
            "What their filters find may be the other's. See confounded.",
            ConfoundedWarning,
            stacklevel=5,
        )


def _confounded_indices(book: Phrasebook) -> Tensor:
    """Which phrase each may be mistaken for, (K,), by number; -1 for none."""
    alike, index = book.confounded(), {phrase: k for k, phrase in enumerate(book.phrases)}
    return torch.tensor([index[alike[phrase]] if phrase in alike else -1 for phrase in book.phrases])


def _word_vectors(phrases: Sequence[str], path: str | None) -> WordVectors | None:
    """What the file at `path` knows of the words of `phrases`."""
    if path is None:
        return None
    words = {word for phrase in phrases for word in phrase_words(phrase)}
    vectors = read_vectors(path, words)
    if not vectors:
        raise InputError(
            f"Expected the vectors of words such as {_first_names(sorted(words))}; {path!r} has none of them."
        )
    return vectors.get


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
