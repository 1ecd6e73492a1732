"""A trainer is data: phases say what learns, how fast, from which loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

from attrs import field, frozen
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from explainkit.data.types import Augmentation, Batch, ImageDataset
from explainkit.errors import InputError, TrainingError
from explainkit.training.steps import Step

PRECISIONS = ("32-true", "64-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed")

Network = TypeVar("Network", bound=nn.Module)
Loss = Callable[[Network, Batch, Step], Mapping[str, Tensor]]
"""(network, batch, step) to named scalar terms, each already weighted; their sum is minimized."""

LRSchedulerFactory = Callable[[Optimizer, int], LRScheduler]
"""(optimizer, how often it will be stepped in this phase) to a scheduler."""


@frozen(kw_only=True)
class Epoch:
    """What one epoch cost and gave.

    Attributes
    ----------
    phase : str
    epoch : int
        Within the phase, from 1.
    train_losses : mapping of str to float
        Mean of each loss term over the epoch's images.
    val_accuracy, val_loss : float
        On the validation split: share of right predictions, mean cross-entropy. Of several labels an image,
        `val_metrics` has ``"mean_average_precision"`` too, and the best epoch has most of that.
    seconds : float
    val_metrics : mapping of str to float
        The phase's own `val_metrics`, by name.
    """

    phase: str
    epoch: int
    train_losses: Mapping[str, float]
    val_accuracy: float
    val_loss: float
    seconds: float
    val_metrics: Mapping[str, float] = field(factory=dict)


ValMetrics = Callable[[Network, ImageDataset], Mapping[str, float]]
"""(network, dataset) to named numbers, taken after every epoch in eval mode without gradients."""

StopCondition = Callable[[Network, ImageDataset, Sequence[Epoch]], bool]
"""(network, dataset, all epochs so far) to whether a repeat has gone on for long enough."""


@frozen(eq=False)
class Phase(Generic[Network]):
    """One stretch of training.

    Attributes
    ----------
    name : str
    epochs : int
        0 for a phase that only runs `on_end`.
    loss : Loss or None
    lr : mapping of str to float
        Learning rate by parameter name, or by a prefix of whole dotted words: ``"backbone"`` means
        ``backbone.stem.0.weight`` and not ``backbone2.weight``; ``""`` means all. What nothing names is
        frozen.
    weight_decay : float or mapping of str to float
        Weight decay: a number for every learning parameter of two or more axes, or by name as `lr`.
    no_weight_decay : sequence of str or None
        Parameters, by name as `lr`, that a number leaves out, although they have two or more axes.
    optimizer : {"adamw", "adam", "sgd"}
    optimizer_kwargs : mapping
        Further arguments of the optimizer, such as ``{"betas": (0.9, 0.99)}``.
    lr_scheduler : {"constant", "cosine", "one-cycle"} or LRSchedulerFactory
    lr_scheduler_interval : {"step", "epoch"}
        How often the schedule moves.
    batch_size : int
        Over all processes.
    precision : str
        As Lightning Fabric names it: ``"32-true"``, ``"bf16-mixed"``, ``"64-true"`` …
    grad_clip_norm : float or None
        Largest norm of the gradient.
    restore_best : bool
        End with the weights of the epoch with the best validation accuracy (then loss), not the last.
    patience : int or None
        Stop after so many epochs without a better one.
    augment : Augmentation, None or "dataset"
        How training images are changed; ``"dataset"``: as the data set says, by its own `augment`.
    on_step_end : callable or None
        Run on (network, step) after every step of the optimizer, without gradients: projections of weights,
        gates. Every process does it alike.
    on_end : callable or None
        Run on (network, dataset) after the last epoch, in eval mode without gradients: projection, pruning.
    val_metrics : ValMetrics or None
        What is recorded of every epoch beside its accuracy.
    """

    name: str
    epochs: int = 0
    loss: Loss[Network] | None = None
    lr: Mapping[str, float] = field(factory=dict)
    weight_decay: float | Mapping[str, float] = 0.0
    no_weight_decay: Sequence[str] | None = None
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    optimizer_kwargs: Mapping[str, Any] = field(factory=dict)
    lr_scheduler: Literal["constant", "cosine", "one-cycle"] | LRSchedulerFactory = "constant"
    lr_scheduler_interval: Literal["step", "epoch"] = "step"
    batch_size: int = 64
    precision: str = "32-true"
    grad_clip_norm: float | None = None
    restore_best: bool = False
    patience: int | None = None
    augment: Augmentation | Literal["dataset"] | None = "dataset"
    on_step_end: Callable[[Network, Step], None] | None = None
    on_end: Callable[[Network, ImageDataset], None] | None = None
    val_metrics: ValMetrics[Network] | None = None

    def __attrs_post_init__(self) -> None:
        for name, low in (("epochs", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InputError(
                    f"Expected {name} of phase {self.name!r} as a whole number from {low} on; got {value!r}."
                )
        for prefix, rate in self.lr.items():
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < float("inf"):
                raise InputError(
                    f"Expected the rate of {prefix!r} in phase {self.name!r} as a number; got {rate!r}."
                )
        if not (self.augment is None or self.augment == "dataset" or callable(self.augment)):
            raise InputError(
                f"Expected augment of phase {self.name!r} as a function, None or 'dataset'; got "
                f"{self.augment!r}."
            )
        exempt = () if self.no_weight_decay is None else self.no_weight_decay
        if isinstance(exempt, str) or (exempt and isinstance(self.weight_decay, Mapping)):
            raise InputError(
                f"Expected no_weight_decay of phase {self.name!r} as a sequence of names, beside a number "
                f"for weight_decay; got {exempt!r} and {self.weight_decay!r}."
            )
        if self.precision not in PRECISIONS:
            raise InputError(
                f"Expected phase {self.name!r} in one of {', '.join(PRECISIONS)}; got {self.precision!r}."
            )


@frozen(eq=False)
class Repeat(Generic[Network]):
    """Phases run one after another, `max_rounds` times at most, or until `stop_when` says so.

    Attributes
    ----------
    phases : sequence of Phase
    max_rounds : int
    stop_when : StopCondition or None
        Called after every round. What it goes by has to be in its arguments, so that a run that was cut off
        stops where it would have.
    keep_optimizers : bool
        Whether the optimizer of each phase goes on in the next round with what it remembers, such as its
        momentum; its schedule begins anew.
    """

    phases: Sequence[Phase[Network]]
    max_rounds: int
    stop_when: StopCondition[Network] | None = None
    keep_optimizers: bool = False


def augmentation(phase: Phase[Any], dataset: ImageDataset) -> Augmentation | None:
    """How the images of `dataset` are changed in `phase`."""
    return dataset.augment if phase.augment == "dataset" else phase.augment


def optimizer(network: nn.Module, phase: Phase[Any]) -> Optimizer:
    """The phase's optimizer over what it names; everything else is frozen.

    Raises
    ------
    TrainingError
        For a prefix that names nothing, and for a parameter that two prefixes name; where nothing learns.
    """
    makers: Mapping[str, Callable[..., Optimizer]] = {"adamw": AdamW, "adam": Adam, "sgd": SGD}
    if phase.optimizer not in makers:
        raise TrainingError(f"Expected the optimizer to be one of {[*makers]}; got {phase.optimizer!r}.")
    rate = _by_parameter(network, phase.lr, f"Phase {phase.name!r} sets a rate for")
    if not rate:
        raise TrainingError(
            f'Phase {phase.name!r} has a loss and no rate: say what learns, {{"": 1e-3}} for all.'
        )
    network.requires_grad_(False)
    parameters = {name: value for name, value in network.named_parameters() if name in rate}
    for value in parameters.values():
        value.requires_grad_(True)
    if isinstance(phase.weight_decay, Mapping):
        decay = _by_parameter(network, phase.weight_decay, f"Phase {phase.name!r} sets a decay for")
    else:
        without = dict.fromkeys(phase.no_weight_decay or (), 0.0)
        exempt = _by_parameter(network, without, f"Phase {phase.name!r} exempts from weight decay")
        decay = {
            name: phase.weight_decay
            for name, value in parameters.items()
            if value.ndim > 1 and name not in exempt
        }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in parameters.items():
        groups.setdefault((rate[name], decay.get(name, 0.0)), []).append(value)
    return makers[phase.optimizer](
        [{"params": values, "lr": lr, "weight_decay": wd} for (lr, wd), values in groups.items()],
        **phase.optimizer_kwargs,
    )


def scheduler(phase: Phase[Any], optimizer: Optimizer, steps: int) -> LRScheduler | None:
    """The phase's schedule over `steps` steps of an epoch."""
    total = max(1, phase.epochs * (steps if phase.lr_scheduler_interval == "step" else 1))
    if phase.lr_scheduler == "constant":
        return None
    if phase.lr_scheduler == "cosine":
        return CosineAnnealingLR(optimizer, total)
    if phase.lr_scheduler == "one-cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(
            optimizer, rates, total_steps=total, pct_start=0.15, div_factor=10, final_div_factor=100,
            cycle_momentum=False,
        )  # fmt: skip
    if isinstance(phase.lr_scheduler, str):
        raise TrainingError(
            f"Expected lr_scheduler as 'constant', 'cosine', 'one-cycle' or a function; got "
            f"{phase.lr_scheduler!r}."
        )
    return phase.lr_scheduler(optimizer, total)


def step_decay(optimizer: Optimizer, _: int, every: int = 5, first: int = 0, factor: float = 0.1) -> LambdaLR:
    """A `LRSchedulerFactory`: the rate times `factor` after each `every` steps of it.

    Of which `first` have passed.
    """
    return LambdaLR(optimizer, lambda step: factor ** ((first + step) // every))


def set_modes(network: nn.Module) -> None:
    """Train mode, but for modules that own parameters of which none learns: so their statistics stay too."""
    network.train()
    for module in network.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.training = False


def _by_parameter(network: nn.Module, settings: Mapping[str, float], what: str) -> dict[str, float]:
    """The setting of each parameter that a prefix names."""
    setting: dict[str, float] = {}
    owner: dict[str, str] = {}
    names = [name for name, _ in network.named_parameters()]
    for prefix, value in settings.items():
        matches = [name for name in names if prefix in ("", name) or name.startswith(f"{prefix}.")]
        if not matches:
            children = ", ".join(name for name, _ in network.named_children())
            raise TrainingError(
                f"{what} {prefix!r}, but no parameter bears that name. There are: {children}."
            )
        for name in matches:
            if name in setting:
                raise TrainingError(f"{what} {name!r} twice, by {owner[name]!r} and by {prefix!r}. Keep one.")
            setting[name], owner[name] = value, prefix
    return setting
