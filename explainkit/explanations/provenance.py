"""Which explainer made an explanation, with what, when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from explainkit.explanations.json_values import JsonValue, json_form


@frozen
class Digest:
    """A digest that is known, called like one that is yet to be computed."""

    text: str = ""

    def __call__(self) -> str:
        """The digest."""
        return self.text


def _written(digest: Callable[[], str]) -> str:
    return digest()


def _read(text: object) -> Digest:
    if not isinstance(text, str):
        raise TypeError(f"the digest is {text!r:.60}")
    return Digest(text)


_AS_TEXT = json_form(_written, _read, {"type": "string"})


@frozen(eq=False, kw_only=True)
class Provenance(JsonValue):
    """Which explainer made an explanation, with what, when.

    Attributes
    ----------
    explainer : str
        The name it is offered under, such as ``"captum/integrated-gradients"``.
    created : str
        When, in UTC, as ISO 8601.
    versions : mapping of str to str
        Of explainkit, of the plugin's distribution and of torch.
    settings : mapping
        The explainer's settings, as JSON values.
    seed : int or None
        That the network was trained with, where it was trained by the explainer.
    augment : mapping of str to str
        How training images were changed, by phase, where the network was trained by the explainer.
    device, dtype : str
        Of the network.
    threads : int
        That torch computed with.
    digest : callable to str
        SHA-256 of the network's state, computed when first asked for; it pickles as what it then is.
    """

    explainer: str
    created: str
    versions: Mapping[str, str] = field(factory=dict)
    settings: Mapping[str, Any] = field(factory=dict, repr=False)
    seed: int | None = None
    augment: Mapping[str, str] = field(factory=dict, repr=False)
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    digest: Callable[[], str] = field(factory=Digest, repr=False, metadata=_AS_TEXT)

    @property
    def model_digest(self) -> str:
        """SHA-256 of the explained network's state, or an empty string where there is none."""
        return self.digest()
