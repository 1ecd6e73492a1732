"""A trainer is data: phases say what learns, how fast, from which loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

from attrs import field, frozen
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from explainkit.data.images import Batch, ImageData
from explainkit.errors import InputError, TrainingError

PRECISIONS = ("32-true", "64-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed")

Network = TypeVar("Network", bound=nn.Module)
Loss = Callable[[Network, Batch], Mapping[str, Tensor]]
"""(network, batch) to named scalar terms, each already weighted; their sum is minimised."""

Schedule = Callable[[Optimizer, int], LRScheduler]
"""(optimiser, how often it will be stepped in this phase) to a scheduler."""


@frozen(kw_only=True)
class Epoch:
    """What one epoch cost and gave.

    Attributes
    ----------
    phase : str
    epoch : int
        Within the phase, from 1.
    terms : mapping of str to float
        Mean of each loss term over the epoch's images.
    accuracy, loss : float
        On the validation split: share of right predictions, mean cross-entropy.
    seconds : float
    measures : mapping of str to float
        What the phase measures beside, by name.
    """

    phase: str
    epoch: int
    terms: Mapping[str, float]
    accuracy: float
    loss: float
    seconds: float
    measures: Mapping[str, float] = field(factory=dict)


Measure = Callable[[Network, ImageData], Mapping[str, float]]
"""(network, data) to named numbers, taken after every epoch in eval mode without gradients."""

Stop = Callable[[Network, ImageData, Sequence[Epoch]], bool]
"""(network, data, all epochs so far) to whether a repeat has gone on for long enough."""


@frozen(eq=False)
class Phase(Generic[Network]):
    """One stretch of training.

    Attributes
    ----------
    name : str
    epochs : int
        0 for a phase that only runs `finish`.
    loss : Loss or None
    rates : mapping of str to float
        Learning rate by parameter name, or by a prefix of whole dotted words: ``"backbone"`` means
        ``backbone.stem.0.weight`` and not ``backbone2.weight``; ``""`` means all. What nothing names is
        frozen.
    decay : float or mapping of str to float
        Weight decay: a number for every learning parameter of two or more axes, or by name as `rates`.
    optimiser : {"adamw", "adam", "sgd"}
    options : mapping
        Further arguments of the optimiser, such as ``{"betas": (0.9, 0.99)}``.
    schedule : {"constant", "cosine", "one-cycle"} or Schedule
    per : {"step", "epoch"}
        How often the schedule moves.
    batch_size : int
        Over all processes.
    precision : str
        As Lightning Fabric names it: ``"32-true"``, ``"bf16-mixed"``, ``"64-true"`` …
    clip : float or None
        Largest norm of the gradient.
    keep_best : bool
        End with the weights of the epoch with the best validation accuracy (then loss), not the last.
    patience : int or None
        Stop after so many epochs without a better one.
    finish : callable or None
        Run on (network, data) after the last epoch, in eval mode without gradients: projection, pruning.
    measure : Measure or None
        What is told of every epoch beside its accuracy.
    """

    name: str
    epochs: int = 0
    loss: Loss[Network] | None = None
    rates: Mapping[str, float] = field(factory=dict)
    decay: float | Mapping[str, float] = 0.0
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    options: Mapping[str, Any] = field(factory=dict)
    schedule: Literal["constant", "cosine", "one-cycle"] | Schedule = "constant"
    per: Literal["step", "epoch"] = "step"
    batch_size: int = 64
    precision: str = "32-true"
    clip: float | None = None
    keep_best: bool = False
    patience: int | None = None
    finish: Callable[[Network, ImageData], None] | None = None
    measure: Measure[Network] | None = None

    def __attrs_post_init__(self) -> None:
        for name, low in (("epochs", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InputError(
                    f"Expected {name} of phase {self.name!r} as a whole number from {low} on; got {value!r}."
                )
        for prefix, rate in self.rates.items():
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < float("inf"):
                raise InputError(
                    f"Expected the rate of {prefix!r} in phase {self.name!r} as a number; got {rate!r}."
                )
        if self.precision not in PRECISIONS:
            raise InputError(
                f"Expected phase {self.name!r} in one of {', '.join(PRECISIONS)}; got {self.precision!r}."
            )


@frozen(eq=False)
class Repeat(Generic[Network]):
    """Phases run in turn, `times` times at most, or until `until` says so.

    Attributes
    ----------
    phases : sequence of Phase
    times : int
    until : Stop or None
        Asked after every turn. What it goes by has to be in what it is given, so that a run that was cut off
        stops where it would have.
    """

    phases: Sequence[Phase[Network]]
    times: int
    until: Stop[Network] | None = None


def optimiser(network: nn.Module, phase: Phase[Any]) -> Optimizer:
    """The phase's optimiser over what it names; everything else is frozen.

    Raises
    ------
    TrainingError
        For a prefix that names nothing, and for a parameter that two prefixes name; where nothing learns.
    """
    makers: Mapping[str, Callable[..., Optimizer]] = {"adamw": AdamW, "adam": Adam, "sgd": SGD}
    if phase.optimiser not in makers:
        raise TrainingError(f"Expected the optimiser to be one of {[*makers]}; got {phase.optimiser!r}.")
    rate = _by_parameter(network, phase.rates, f"Phase {phase.name!r} sets a rate for")
    if not rate:
        raise TrainingError(
            f'Phase {phase.name!r} has a loss and no rate: say what learns, {{"": 1e-3}} for all.'
        )
    network.requires_grad_(False)
    parameters = {name: value for name, value in network.named_parameters() if name in rate}
    for value in parameters.values():
        value.requires_grad_(True)
    if isinstance(phase.decay, Mapping):
        decay = _by_parameter(network, phase.decay, f"Phase {phase.name!r} sets a decay for")
    else:
        decay = {name: phase.decay for name, value in parameters.items() if value.ndim > 1}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in parameters.items():
        groups.setdefault((rate[name], decay.get(name, 0.0)), []).append(value)
    return makers[phase.optimiser](
        [{"params": values, "lr": lr, "weight_decay": wd} for (lr, wd), values in groups.items()],
        **phase.options,
    )


def scheduler(phase: Phase[Any], optimiser: Optimizer, steps: int) -> LRScheduler | None:
    """The phase's schedule over `steps` steps of an epoch."""
    total = max(1, phase.epochs * (steps if phase.per == "step" else 1))
    if phase.schedule == "constant":
        return None
    if phase.schedule == "cosine":
        return CosineAnnealingLR(optimiser, total)
    if phase.schedule == "one-cycle":
        rates = [group["lr"] for group in optimiser.param_groups]
        return OneCycleLR(
            optimiser, rates, total_steps=total, pct_start=0.15, div_factor=10, final_div_factor=100,
            cycle_momentum=False,
        )  # fmt: skip
    if isinstance(phase.schedule, str):
        raise TrainingError(
            f"Expected a schedule 'constant', 'cosine', 'one-cycle' or a function; got {phase.schedule!r}."
        )
    return phase.schedule(optimiser, total)


def step_decay(optimiser: Optimizer, _: int, every: int = 5, first: int = 0, factor: float = 0.1) -> LambdaLR:
    """A `Schedule`: the rate times `factor` after each `every` steps of it, of which `first` have passed."""
    return LambdaLR(optimiser, lambda step: factor ** ((first + step) // every))


def set_modes(network: nn.Module) -> None:
    """Train mode, but for modules that own parameters of which none learns: so their statistics stay too."""
    network.train()
    for module in network.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.training = False


def _by_parameter(network: nn.Module, settings: Mapping[str, float], what: str) -> dict[str, float]:
    """The setting of each parameter that a prefix names."""
    found: dict[str, float] = {}
    owner: dict[str, str] = {}
    names = [name for name, _ in network.named_parameters()]
    for prefix, value in settings.items():
        named = [name for name in names if prefix in ("", name) or name.startswith(f"{prefix}.")]
        if not named:
            children = ", ".join(name for name, _ in network.named_children())
            raise TrainingError(
                f"{what} {prefix!r}, but no parameter bears that name. There are: {children}."
            )
        for name in named:
            if name in found:
                raise TrainingError(f"{what} {name!r} twice, by {owner[name]!r} and by {prefix!r}. Keep one.")
            found[name], owner[name] = value, prefix
    return found
