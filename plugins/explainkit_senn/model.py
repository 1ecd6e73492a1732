"""The network: a conceptizer, a parametrizer that weighs its concepts anew for every input, and their sum."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from explainkit.errors import InputError
from explainkit.explanations.decomposition import Decomposition, PerImageWeights
from explainkit.networks.backbones import Backbone
from explainkit.networks.normalization import batch_mixing_module, fold_batch_norm
from explainkit.networks.precision import disable_autocast, full_precision
from explainkit_senn.concepts import Conceptizer

STRIP = 5
"""Pictures of a concept from little to much of it."""

BEST = 5
"""Training images with most of a concept that are kept, and as many with least."""


@frozen(eq=False, kw_only=True)
class SENNOutputs:
    """What one forward pass gives: for losses, and for the decomposition.

    Attributes
    ----------
    logits : Tensor, (N, C)
    theta : Tensor, (N, K', C)
        The weights of all concepts, the constant one last where there is one.
    concepts : Tensor, (N, K')
        How much of each there is, and 1 for the constant one.
    scores : Tensor, (N, K)
        `concepts` without the constant one.
    tracked_inputs : Tensor or None, (n, ...)
        The first inputs again, which theta depends on with a graph; in training alone.
    reconstruction : Tensor or None
        The inputs as they are drawn from the concepts; in training alone.
    """

    logits: Tensor
    theta: Tensor
    concepts: Tensor
    scores: Tensor
    tracked_inputs: Tensor | None = None
    reconstruction: Tensor | None = None


class Grounds(nn.Module):
    """What the concepts look like; buffers, so that they are saved.

    Attributes
    ----------
    std, mean : Tensor, (K,)
        Deviation and mean of each concept over the training inputs, before it was brought to deviation 1.
    range : Tensor, (2, K)
        5 % and 95 % quantiles, after that.
    picture : Tensor, (2 K BEST, 3, H, W), uint8
        For each concept the training images with most of it, then those with least, the most extreme first;
        0 x 0 where inputs are no images.
    image, label : Tensor, (K, 2 BEST), int64
        Their ids and classes; -1 where there is none.
    drawn : Tensor, (K STRIP, 3, H, W), uint8
        What the decoder draws from little to much of it, all others at their mean.
    """

    std: Tensor
    mean: Tensor
    range: Tensor
    picture: Tensor
    image: Tensor
    label: Tensor
    drawn: Tensor

    def __init__(self, concepts: int, size: Sequence[int]) -> None:
        super().__init__()
        height, width = size if len(size) == 2 else (0, 0)
        self.register_buffer("std", torch.ones(concepts))
        self.register_buffer("mean", torch.zeros(concepts))
        self.register_buffer("range", torch.zeros(2, concepts))
        self.register_buffer("picture", torch.zeros(2 * concepts * BEST, 3, height, width, dtype=torch.uint8))
        self.register_buffer("image", torch.full((concepts, 2 * BEST), -1))
        self.register_buffer("label", torch.full((concepts, 2 * BEST), -1))
        self.register_buffer("drawn", torch.zeros(concepts * STRIP, 3, height, width, dtype=torch.uint8))


class ImageParametrizer(nn.Module):
    """Weights (N, K, C) from a backbone's features.

    Parameters
    ----------
    cells : int or None
        How many cells their grid has, where all are read; ``None``: their mean is.
    bounded : bool
        Whether weights are brought into (-1, 1), as in the paper's experiments on MNIST.
    """

    def __init__(
        self,
        backbone: Backbone,
        concepts: int,
        classes: int,
        *,
        cells: int | None = None,
        dropout: float = 0.0,
        bounded: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.bounded, self.cells = backbone, bounded, cells
        self.dropout = nn.Dropout(dropout)
        self.weigh = nn.Linear(backbone.channels * (cells or 1), concepts * classes)
        self.shape = (concepts, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to (N, K, C)."""
        features = full_precision(self.backbone(inputs))
        features = features.mean((2, 3)) if self.cells is None else features.flatten(1)
        theta = self.weigh(self.dropout(features)).unflatten(1, self.shape)
        return theta.tanh() if self.bounded else theta


class TableParametrizer(nn.Module):
    """Weights (N, K, C) from the columns of a row, by layers with tanh between (the paper's FC nets)."""

    def __init__(
        self,
        features: int,
        concepts: int,
        classes: int,
        widths: Sequence[int] = (32, 32),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = [features, *widths]
        layers: list[nn.Module] = []
        for before, after in zip(sizes, widths, strict=False):
            layers += [nn.Linear(before, after), nn.Tanh()]
        self.layers = nn.Sequential(*layers, nn.Dropout(dropout))
        self.weigh = nn.Linear(sizes[-1], concepts * classes)
        self.shape = (concepts, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Columns (N, F) at mean 0 and deviation 1 to (N, K, C)."""
        return self.weigh(self.layers(inputs)).unflatten(1, self.shape)


class Standardize(nn.Module):
    """Rows (N, F) at mean 0 and deviation 1 in every column, by those of the training rows.

    Parameters
    ----------
    mean, std : Tensor, (F,)
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, F)."""
        return (inputs - self.mean) / self.std


class SENNNetwork(nn.Module):
    """Logits as sums of concepts, each times a weight that the input chose (section 3 of the paper).

    Parameters
    ----------
    conceptizer : Conceptizer
    parametrizer : nn.Module
        Inputs to (N, K, C), or (N, K + 1, C) with a constant concept.
    concepts, classes : int
    size : sequence of int
        Of the inputs: (H, W), or (F,) for rows.
    preprocess : nn.Module or None
        What is done to inputs before all else; the weights are held stable in what comes of it.
    channels : int
        That the conceptizer sees: 1 where images are gray.
    constant : bool
        Whether there is a concept that is always 1: its weight is a bias that depends on the input.
    robustness_fraction : float
        Share of a training batch for which the weights' slopes can be computed.

    Raises
    ------
    InputError
        For a parametrizer in which the inputs of a batch change each other's weights, even once its batch
        norms are at rest (`fold_batch_norms`): one of them keeps no statistics.
    """

    unit_mask: Tensor

    def __init__(
        self,
        conceptizer: Conceptizer,
        parametrizer: nn.Module,
        concepts: int,
        classes: int,
        size: Sequence[int],
        *,
        preprocess: nn.Module | None = None,
        channels: int = 3,
        constant: bool = False,
        robustness_fraction: float = 1.0,
    ) -> None:
        super().__init__()
        mixing = batch_mixing_module(fold_batch_norm(deepcopy(parametrizer)))
        if mixing is not None:
            raise InputError(
                "Expected a parametrizer in which no input changes the weights of another; its batch norm "
                f"{mixing!r} keeps no statistics to rest on. Make it with track_running_stats=True."
            )
        self.preprocess = preprocess or nn.Identity()
        self.conceptizer, self.parametrizer = conceptizer, parametrizer
        self.grounds = Grounds(concepts, size)
        self.register_buffer("unit_mask", torch.ones(concepts, dtype=torch.bool))
        self.input_size = tuple(size)
        self.classes, self.channels, self.constant = classes, channels, constant
        self.robustness_fraction = robustness_fraction

    @property
    def is_tabular(self) -> bool:
        """Whether its inputs are rows of a table."""
        return isinstance(self.preprocess, Standardize)

    def outputs(self, inputs: Tensor) -> SENNOutputs:
        """Concepts, what each is worth to every class in each input, and what training looks at beside."""
        inputs = self.preprocess(inputs)
        tracked_inputs = self._tracked_inputs(inputs)
        if tracked_inputs is None:
            theta = self.weights_of(inputs)
        else:
            chunks = tracked_inputs, inputs[len(tracked_inputs) :]
            theta = torch.cat([self.weights_of(chunk) for chunk in chunks if len(chunk)])
        concepts = self.concepts_of(inputs)
        with disable_autocast(inputs.device):
            logits = torch.einsum("nk,nkc->nc", concepts, theta)
        scores, reconstruction = self._own(concepts), None
        if self.training:
            reconstruction = self.conceptizer.decode(self._own(concepts) * self.grounds.std)
        return SENNOutputs(
            logits=logits, theta=theta, concepts=concepts, scores=scores, tracked_inputs=tracked_inputs,
            reconstruction=reconstruction,
        )  # fmt: skip

    def decompose(self, inputs: Tensor) -> Decomposition:
        """Concepts (N, K), and what each is worth to every class in each input."""
        outputs = self.outputs(inputs)
        bias = outputs.theta[:, -1] if self.constant else outputs.logits.new_zeros(self.classes)
        return Decomposition(
            logits=outputs.logits,
            bias=bias,
            scores=outputs.scores,
            weights=PerImageWeights(self._own(outputs.theta).mT),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, C)."""
        return self.outputs(inputs).logits

    def _own(self, values: Tensor) -> Tensor:
        """`values` (N, K', ...) of all concepts but the constant one, (N, K, ...)."""
        return values[:, : values.shape[1] - self.constant]

    def concepts_of(self, inputs: Tensor) -> Tensor:
        """(N, K) of preprocessed inputs, of deviation 1 on training data; and a 1, if one is constant."""
        concepts = full_precision(self.conceptizer.encode(self.conceptizer_inputs(inputs))) / self.grounds.std
        concepts = torch.where(self.unit_mask, concepts, 0.0)
        return torch.cat([concepts, torch.ones_like(concepts[:, :1])], 1) if self.constant else concepts

    def weights_of(self, inputs: Tensor) -> Tensor:
        """(N, K, C) of preprocessed inputs, for concepts of deviation 1, or (N, K + 1, C)."""
        theta = full_precision(self.parametrizer(inputs))
        std = self.grounds.std
        if self.constant:
            std = torch.cat([std, torch.ones_like(std[:1])])
        return theta * std[:, None]

    def conceptizer_inputs(self, inputs: Tensor) -> Tensor:
        """Inputs as the conceptizer takes them: gray where it has one channel."""
        return inputs.mean(1, keepdim=True) if inputs.ndim == 4 and self.channels == 1 else inputs

    def _tracked_inputs(self, inputs: Tensor) -> Tensor | None:
        if not (self.training and self.robustness_fraction and torch.is_grad_enabled()):
            return None
        if batch_mixing_module(self.parametrizer):
            return None  # slopes would be those of the batch
        count = max(1, round(self.robustness_fraction * len(inputs)))
        return inputs[:count].detach().requires_grad_()

    def fold_batch_norms(self) -> None:
        """From now on no input changes the weights of another: batch norms are at rest."""
        fold_batch_norm(self.parametrizer).to(memory_format=torch.channels_last)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take the form of what is loaded: after training there is no batch norm."""
        norm = batch_mixing_module(self.parametrizer)
        if norm is not None and f"{prefix}parametrizer.{norm}.running_mean" not in state_dict:
            self.fold_batch_norms()
        super()._load_from_state_dict(state_dict, prefix, *rest)
