"""``python -m flashsd_ray`` is the command ``flashsd``."""

import sys

from flashsd_ray.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
