"""What CCNN says: how much of each phrase its filter found, where, and what that is worth to the class."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import torch
from attrs import define, field
from torch import Tensor, nn

import explainkit as ek
from explainkit.data.phrases import Phrasebook, phrasebook
from explainkit.data.vectors import WordVectors, phrase_vectors, read_vectors, words_in
from explainkit.errors import BindError, InputError
from explainkit_ccnn.model import CCNNNetwork
from explainkit_ccnn.trainer import guided_loss, head_loss


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
        By name; fine grids tell small parts apart.
    weights : str or None
        Handed to it, for those that come trained.
    vectors : str or None
        A file of word vectors, as those of GloVe: a word and its numbers a line. ``None``: words are hashed.
        Read by `fit` alone; what was read of it is saved with the network.
    per_class, least : int
        Phrases of a class at most; images of a class in which one must be said.
    share : float
        And the share of them. The paper has none; its 3 images were a tenth of a class.
    joint : int
        Length of the vectors that maps and phrases are compared by.
    first, guided, last : int
        Epochs: of the concept layer alone; of all but the last layer; of the last layer.
    rate, guided_rate, last_rate, decay : float
        Learning rates of the three stages, at their peak, and weight decay.
    concept_weight : float
        Of uniqueness, semantic and counter loss together; 0 leaves filters without guidance.
    gain : float
        How sharply a filter's score is read as a probability.
    balanced : bool
        Weigh what was said and what was not alike.
    margin, counter_margin : float
        Of the semantic and of the counter loss.
    start : float
        First weight between a class and its phrases.
    dropout, smoothing : float
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="CCNN",
        citation="Wickramanayake, Hsu, Lee; IJCNN 2021; arXiv:2101.03919",
        claim="exact",
        speaks="phrases",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "tiny": {
            "backbone": "tiny", "guided": 1, "last": 1, "least": 1, "per_class": 4, "joint": 4,
        },
        "paper": {
            "backbone": "torchvision/vgg16", "weights": "DEFAULT", "joint": 24, "first": 20, "guided": 50,
            "last": 20, "rate": 1e-3, "guided_rate": 1e-4, "last_rate": 1e-4, "decay": 0.0, "gain": 1.0,
            "balanced": False, "share": 0.0, "margin": 1.0, "counter_margin": 0.5, "start": 0.1,
            "dropout": 0.5, "smoothing": 0.0, "batch_size": 32, "schedule": "constant",
        },
    }  # fmt: skip

    backbone: str = "small-fine"
    weights: str | None = None
    vectors: str | None = None
    per_class: int = 20
    least: int = 3
    share: float = 0.03
    joint: int = 12
    first: int = 0
    guided: int = 9
    last: int = 2
    rate: float = 4e-3
    guided_rate: float = 4e-3
    last_rate: float = 4e-3
    decay: float = 0.05
    schedule: str = "one-cycle"
    concept_weight: float = 0.4
    gain: float = 5.0
    balanced: bool = True
    margin: float = 0.3
    counter_margin: float = 0.3
    start: float = 1.0
    dropout: float = 0.0
    smoothing: float = 0.0
    batch_size: int = 64
    _book: Phrasebook | None = field(default=None, init=False, repr=False)
    _vectors: Tensor | None = field(default=None, init=False, repr=False)

    def build(self, task: ek.Task) -> CCNNNetwork:
        """The network of model.py, a filter a phrase of the training captions, or of the saved units."""
        given = {} if self.weights is None else {"weights": self.weights}
        backbone = ek.backbone(self.backbone, **given)
        height, width = task.size
        with torch.no_grad():
            cells = backbone.eval()(torch.zeros(1, 3, height, width)).shape[2:].numel()
        backbone.train()
        if task.data is not None:
            self._book = book = self._read(task.data)
            _warn(book, task.classes)
            names, of_classes, alike = book.phrases, book.of_classes, _places(book)
            vectors = phrase_vectors(names, _word_vectors(names, self.vectors))
        elif self._vectors is not None:
            names, vectors = (), self._vectors
            of_classes = torch.zeros(len(vectors), len(task.classes), dtype=torch.bool)
            alike = torch.full((len(vectors),), -1)
        else:
            raise InputError("Expected captions to find phrases in: call fit(data).")
        return CCNNNetwork(backbone, of_classes, vectors, cells, self.joint, self.start, self.dropout, alike)

    def phases(self) -> list[ek.Phase[Any]]:
        """The paper's three stages: filters alone, all but the last layer, the last layer."""
        if self._book is None:
            raise InputError("Expected the phrases of the training captions: call fit(data).")
        loss = partial(
            guided_loss, said=self._book.of_images, concept_weight=self.concept_weight, gain=self.gain,
            balanced=self.balanced, margin=self.margin, counter_margin=self.counter_margin,
            smoothing=self.smoothing,
        )  # fmt: skip
        common: dict[str, Any] = {"batch_size": self.batch_size, "options": {"betas": (0.9, 0.99)}}
        filters = ("concepts", "visual", "textual")
        plan: list[ek.Phase[Any]] = []
        if self.first:
            plan.append(ek.Phase("filters", self.first, loss, dict.fromkeys(filters, self.rate), **common))
        plan.append(
            ek.Phase(
                "guided", self.guided, loss, dict.fromkeys(("backbone", *filters), self.guided_rate),
                decay={"backbone": self.decay, "concepts": self.decay} if self.decay else 0.0,
                schedule=self.schedule, **common,  # type: ignore[arg-type]
            )
        )  # fmt: skip
        last = partial(head_loss, smoothing=self.smoothing)
        plan.append(ek.Phase("last", self.last, last, {"head": self.last_rate}, **common))
        return plan

    def describe(self, network: CCNNNetwork) -> ek.Units:
        """A unit a filter, which is its phrase."""
        count = network.head.in_features
        phrases = self._book.phrases if self._book is not None else None
        names = [f"filter {k}" for k in range(count)]
        return ek.Units(kind="phrase", names=names, phrases=phrases, pooling="mean")

    def restore(
        self,
        state: Mapping[str, Tensor],
        classes: Sequence[str],
        size: tuple[int, ...] | None,
        units: ek.Units | None,
    ) -> Self:
        """As every explainer is restored; how many phrases there are, and their vectors, are in `state`."""
        vectors = state.get("vectors")
        if vectors is None or vectors.ndim != 2 or not vectors.numel():
            raise InputError("Expected the vectors (K, E) of the phrases of a saved CCNN; got none.")
        self._book, self._vectors = None, vectors
        try:
            return super().restore(state, classes, size, units)
        finally:
            self._vectors = None

    @classmethod
    def bind(cls, network: nn.Module, *, classes: Sequence[str] | None = None, **settings: Any) -> Self:
        """An explainer of a `CCNNNetwork` trained elsewhere; its phrases are not in the network.

        Raises
        ------
        BindError
            For a network of another form.
        """
        if not isinstance(network, CCNNNetwork):
            raise BindError(
                f"Expected a CCNNNetwork; got {type(network).__name__}, whose filters have no phrases. Train "
                "one with fit(data)."
            )
        return super().bind(network, classes=classes, **settings)

    @property
    def confounded(self) -> dict[str, str]:
        """Phrases that may not have been learned apart from others, with the likest of those.

        Either both were chosen for the very same classes, or one was said nearly always with the other. It is
        known of the captions alone: where what the phrases speak of varies within classes, and independently,
        they can be told apart nevertheless.

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

    def _read(self, data: ek.ImageData) -> Phrasebook:
        """The phrases of the training captions, which alone are looked at."""
        captions = []
        for batch in data.batches("train", 256):
            if batch.captions is None:
                raise InputError(
                    f"Expected captions of the training images, to learn filters from; {data.name} has none."
                )
            captions += [caption.text for caption in batch.captions]
        return phrasebook(
            captions, data.train.labels, len(data.classes), per_class=self.per_class, least=self.least,
            share=self.share, synonyms=data.synonyms,
        )  # fmt: skip


def shares(told: ek.Explanations) -> Tensor:
    """Each phrase's share of all evidence, (N, K): ``contribution / sum |contribution|``."""
    sizes = told.contributions.abs().sum(1, keepdim=True)
    return told.contributions / sizes.clamp(min=1e-12)


def _warn(book: Phrasebook, classes: Sequence[str]) -> None:
    """Tell whoever called `fit` what these phrases cannot do."""
    spoken = book.of_classes.any(0).tolist()
    if speechless := [name for name, told in zip(classes, spoken, strict=True) if not told]:
        warnings.warn(
            f"The captions have no phrase that tells {_some(speechless)} from other classes: until the last "
            "layer is trained nothing speaks for them. Give more captions, or a smaller least=… or share=….",
            SpeechlessWarning, stacklevel=5,
        )  # fmt: skip
    if alike := book.confounded():
        some = _some([f"{one!r} (like {other!r})" for one, other in alike.items()])
        warnings.warn(
            f"{len(alike)} of {len(book)} phrases may not be told from another by captions: {some}. What "
            "their filters find may be the other's. See confounded.",
            ConfoundedWarning, stacklevel=5,
        )  # fmt: skip


def _places(book: Phrasebook) -> Tensor:
    """Which phrase each may be mistaken for, (K,), by number; -1 for none."""
    alike, place = book.confounded(), {phrase: k for k, phrase in enumerate(book.phrases)}
    return torch.tensor([place[alike[phrase]] if phrase in alike else -1 for phrase in book.phrases])


def _word_vectors(phrases: Sequence[str], path: str | None) -> WordVectors | None:
    """What the file at `path` knows of the words of `phrases`."""
    if path is None:
        return None
    words = {word for phrase in phrases for word in words_in(phrase)}
    known = read_vectors(path, words)
    if not known:
        raise InputError(
            f"Expected the vectors of words such as {_some(sorted(words))}; {path!r} has none of them."
        )
    return known.get


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
