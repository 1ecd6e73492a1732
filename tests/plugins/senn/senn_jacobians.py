"""Jacobians and gradients of SENN networks, one input at a time."""

import torch
from torch import nn
from torch.func import functional_call, jacrev


def literal_penalty(network, inputs):
    """``sum_c |grad f_c - sum_k theta_kc grad h_k|^2``, one input and one Jacobian at a time."""

    def of(name):
        module = MethodModule(network, name)
        parameters = dict(module.named_parameters())
        return lambda one: functional_call(module, parameters, (one[None],))[0]

    penalties = []
    for one in network.preprocess(inputs):
        logits, concepts = (jacrev(of(name))(one).flatten(1) for name in ("logits", "concepts_of"))
        linear = torch.einsum("kc,kd->cd", of("weights_of")(one), concepts)
        penalties.append((logits - linear).square().sum())
    return torch.stack(penalties)


class MethodModule(nn.Module):
    """A method of a network, or its logits from preprocessed inputs, as a module."""

    def __init__(self, network, name):
        super().__init__()
        self.network, self.name = network, name

    def forward(self, inputs):
        if self.name == "logits":
            return torch.einsum(
                "nk,nkc->nc", self.network.concepts_of(inputs), self.network.weights_of(inputs)
            )
        return getattr(self.network, self.name)(inputs)


def tracked_terms(network, inputs):
    """Theta with a graph to inputs, concepts without one, and those inputs."""
    preprocessed = network.preprocess(inputs).detach()
    tracked = preprocessed.clone().requires_grad_()
    return network.weights_of(tracked), network.concepts_of(preprocessed), tracked


def gradients(network, value):
    """The gradient of `value` in each parameter, by its name: zeros where there is none."""
    slopes = torch.autograd.grad(value, list(network.parameters()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if slope is None else slope
        for (name, parameter), slope in zip(network.named_parameters(), slopes, strict=True)
    }


def assert_all_near(values, expected, tolerance):
    """All tensors, by the size of the largest of them."""
    scale = max(value.abs().max().item() for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value, rtol=tolerance, atol=tolerance * scale, msg=name)
