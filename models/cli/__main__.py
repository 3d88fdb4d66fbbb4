"""`python -m lmwp_models.cli` is `lmwp`."""

import sys

from lmwp_models.cli.main import main

sys.exit(main())
