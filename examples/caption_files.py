"""Caption files with the Python client: python examples/caption_files.py FILE..."""

# ruff: noqa: T201

import os
import sys
from pathlib import Path

from flashsd_ray.client import Client
from flashsd_ray.errors import FlashSDError

PROMPT = "Describe the video in detail."

with Client("localhost:9000", api_key=os.environ.get("FLASHSD_API_KEY", "")) as client:
    print(f"{client.model().name} at localhost:9000")
    for path in map(Path, sys.argv[1:]):
        try:
            caption = client.caption(path, PROMPT, timeout_s=60)
        except FlashSDError as error:
            print(f"{path.name}: {error}")
        else:
            print(f"{path.name}: {caption.text}  (tau {caption.statistics.tau:.2f})")
