"""Whether a network has the hooks and gradients that a method needs, found out on one image."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from explainkit.errors import UnsupportedNetworkError
from explainkit_captum.exported import is_exported
from explainkit_captum.logits import check_logits, unwrap

WITHOUT_GRADIENTS = (
    "'captum/occlusion', 'captum/feature-ablation', 'captum/shapley-value-sampling', 'captum/kernel-shap' "
    "and 'captum/lime'"
)
"""Methods that need logits alone."""


def check_hooks(network: nn.Module, title: str) -> None:
    """Refuse a network with modules that take no hooks.

    Raises
    ------
    UnsupportedNetworkError
        Naming methods that need none.
    """
    is_script = any(isinstance(module, torch.jit.ScriptModule) for module in network.modules())
    if is_script or is_exported(unwrap(network)):
        reason = "TorchScript takes no hooks" if is_script else "torch.export leaves no layers to hook"
        raise UnsupportedNetworkError(
            f"Expected a network of Python modules for {title}; got {type(unwrap(network)).__name__}, and "
            f"{reason}. Methods that use none can explain it: 'captum/saliency', "
            f"'captum/integrated-gradients', {WITHOUT_GRADIENTS}."
        )


def check_gradients(
    network: nn.Module, image: Tensor, title: str, *, layer: str | None = None, at_pixels: bool = True
) -> None:
    """Refuse a network whose logits have no gradient where a method asks for it.

    Parameters
    ----------
    network : nn.Module
        A shadow: `layer` is hooked.
    image : Tensor, (1, 3, H, W)
    layer : str or None
        At what it returns; ``None``: at the pixels.
    at_pixels : bool
        Without it, and without a layer, logits with any gradient will do.

    Raises
    ------
    UnsupportedNetworkError
        Naming methods that need none.
    """
    reason = _missing_gradient(network, image, layer, at_pixels)
    if reason is not None:
        raise UnsupportedNetworkError(
            f"Expected a network with gradients for {title}; {type(unwrap(network)).__name__} {reason}. "
            f"Methods that need logits alone can explain it: {WITHOUT_GRADIENTS}."
        )


def _missing_gradient(network: nn.Module, image: Tensor, layer: str | None, at_pixels: bool) -> str | None:
    """What the network does in place of gradients; ``None`` where it has them."""
    pixels = image.detach().clone().requires_grad_()
    outputs: list[Any] = []
    try:
        with torch.enable_grad(), ExitStack() as hooks:
            if layer is not None:
                module = unwrap(network).get_submodule(layer)
                hooks.enter_context(module.register_forward_hook(lambda *call: outputs.append(call[2])))
            logits = check_logits(network(pixels), len(image))
        if not logits.requires_grad:
            return "returns logits without any: it computes under no_grad or in integers, or detaches"
        end = outputs[-1] if outputs else pixels
        if isinstance(end, Tensor) and (outputs or at_pixels):
            what = "the image" if layer is None else f"what {layer!r} returns"
            if not end.requires_grad or not _depends(logits, end):
                return f"detaches {what} from its logits"
    except torch.OutOfMemoryError:
        raise
    except (NotImplementedError, RuntimeError) as error:  # of integer kernels, inference tensors, scripts
        message = " ".join(str(error).split())
        return f"cannot be differentiated: {message[:200]}"
    return None


def _depends(logits: Tensor, end: Tensor) -> bool:
    (gradient,) = torch.autograd.grad(logits.sum(), end, allow_unused=True)
    return gradient is not None
