"""Entry point of `python -m reasontrain.cli`."""

import sys

from reasontrain.cli import main

sys.exit(main())
