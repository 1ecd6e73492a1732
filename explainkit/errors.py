"""Every error that explainkit raises on purpose.

ExplainKitError
├── UnknownNameError             no installed plugin offers that name; no class or unit bears it
├── PluginError                  a plugin is broken, or two plugins clash
├── MissingPackageError          an optional library is not installed
├── NotFittedError               asked to predict or explain before fit() or load()
├── InputError                   images, targets or settings of the wrong shape, type or range
│   └── UnsupportedNetworkError  the network does not have the form that the explainer reads
├── AdditivityError              contributions do not add up where additivity is "exact"
├── TrainingError                a loss became NaN or exploded; a phase names no parameter
├── FormatError                  a file is not what explainkit wrote, or of another schema version
└── ConformanceError             an explainer failed a check of the conformance kit

PluginWarning                    a plugin could not be loaded and was skipped
"""


class ExplainKitError(Exception):
    """The root of the tree: catch it to catch them all."""


class UnknownNameError(ExplainKitError, LookupError):
    """A name that nothing bears; the message offers the nearest ones."""


class PluginError(ExplainKitError):
    """A plugin that cannot be used, with the distribution it came from."""


class MissingPackageError(ExplainKitError, ImportError):
    """An optional library that the call needs; the message names the extra."""


class NotFittedError(ExplainKitError, RuntimeError):
    """An explainer without a network yet."""


class InputError(ExplainKitError, ValueError):
    """A value from the caller that breaks a rule: *expected …; got …*, then the way out."""


class UnsupportedNetworkError(InputError):
    """A network that an explainer cannot read, with what was looked for."""


class AdditivityError(ExplainKitError, ArithmeticError):
    """A sum that does not add up, with the image at which it fails."""


class TrainingError(ExplainKitError, RuntimeError):
    """A training run that cannot go on, with phase, epoch and term."""


class FormatError(ExplainKitError, ValueError):
    """A file that is damaged, foreign, or of another schema version."""


class ConformanceError(ExplainKitError, AssertionError):
    """A check of the conformance kit that failed, with its name."""


class PluginWarning(UserWarning):
    """A plugin was skipped; ``explainkit plugins`` says why."""


class NormalizationWarning(UserWarning):
    """Nothing says how a network wants its images, and files are read for it."""


class DecisionWarning(UserWarning):
    """Nobody has said how a network's outputs become an answer, and a default is taken."""


MISFITS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""What Python raises, in one place or another, when a file does not hold what it should."""
