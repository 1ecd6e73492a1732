"""``python -m explainkit``: the command, for launchers such as torchrun."""

import sys

from explainkit.cli import main

sys.exit(main())
