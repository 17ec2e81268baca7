"""Ask `flashsd serve` about a video as OpenAI's clients do: python examples/openai_client.py CLIP [QUESTION]."""

# ruff: noqa: T201

import base64
import os
import sys
from pathlib import Path

from openai import OpenAI

path = Path(sys.argv[1])
question = sys.argv[2] if len(sys.argv) > 2 else "Describe the video in detail."
content = base64.b64encode(path.read_bytes()).decode()

client = OpenAI(base_url="http://localhost:8000/v1", api_key=os.environ.get("FLASHSD_API_KEY", "none"))
chunks = client.chat.completions.create(
    model=client.models.list().data[0].id,
    messages=[
        {
            "role": "user",
            "content": [
                # num_frames, fps, start and end may stand beside the url.
                {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{content}", "num_frames": 8}},
                {"type": "text", "text": question},
            ],
        }
    ],
    temperature=0,
    stream=True,
)
for chunk in chunks:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
        if choice.finish_reason is not None:
            print(f"\n{chunk.flashsd['num_new_tokens']} tokens, tau {chunk.flashsd['tau']:.2f}")
