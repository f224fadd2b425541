"""`python -m isrrescnet_jax.cli` is `isrrescnet`."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
