"""``python -m flashsd_ray.training.target``: the same as ``flashsd train target``."""

import sys

from flashsd_ray.training.target.command import main

if __name__ == "__main__":
    sys.exit(main())
