"""Entry point of `python -m reasontrain`."""

import sys

from reasontrain.cli import main

sys.exit(main())
