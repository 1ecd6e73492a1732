"""What the core itself offers, through the hooks that a stranger's plugin uses."""

from explainkit.hookspecs import Offer, hookimpl


@hookimpl
def explainkit_backbones() -> list[Offer]:
    """Small networks for 32 to 128 pixels."""
    return [Offer("small", "Residual network for images of 32 to 128 pixels", "explainkit.backbones:small")]


@hookimpl
def explainkit_datasets() -> list[Offer]:
    """Images that need no download."""
    return [
        Offer("aviary", "Drawn birds with part masks and captions", "explainkit.data.aviary.dataset:aviary"),
        Offer("digits", "Handwritten digits of scikit-learn", "explainkit.data.digits:digits"),
    ]


@hookimpl
def explainkit_commands() -> list[Offer]:
    """One line a command; each is a file in `explainkit.cli`."""
    return [
        Offer("plugins", "What is installed, and what is broken and why", "explainkit.cli.plugins:plugins"),
        Offer(
            "doctor",
            "Load each plugin and its targets in a process of its own",
            "explainkit.cli.doctor:doctor",
        ),
    ]
