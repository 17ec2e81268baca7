"""Clips as real H.264 files, as a camera would have written them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from flashsd_ray.training.town.language import TASKS, converse, json_of
from flashsd_ray.training.town.render import even_moments, render_clip
from flashsd_ray.training.town.scene import Scene

FRAMES_PER_SECOND = 24
CONSTANT_RATE_FACTOR = "23"
CLIP_PIXELS = 384


def write_video(scene: Scene, path: Path, *, size_px: int = CLIP_PIXELS) -> None:
    """The scene is an H.264 file at `path`."""
    frame_count = round(scene.duration_s * FRAMES_PER_SECOND)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width = stream.height = size_px
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        stream.options = {"crf": CONSTANT_RATE_FACTOR, "preset": "medium"}
        for pixels in render_clip(scene, even_moments(frame_count), size_px).frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def export_clips(out_dir: Path, scenes: Iterable[Scene], *, size_px: int = CLIP_PIXELS) -> list[Path]:
    """One video per scene and `clips.json`, which says what is true of each, lie in `out_dir`."""
    paths, truths = [], {}
    for scene in scenes:
        path = out_dir / f"{scene.place}-{scene.split}-{scene.seed}.mp4"
        write_video(scene, path, size_px=size_px)
        truths[path.name] = describe_truth(scene)
        paths.append(path)
    text = json.dumps(truths, indent=1, ensure_ascii=False)
    (out_dir / "clips.json").write_text(text + "\n", encoding="utf-8")
    return paths


def describe_truth(scene: Scene) -> dict[str, Any]:
    """What is true of the scene, as plain values, with one answer to every kind of question."""
    exchanges = [converse(scene, task, 0) for task in TASKS]
    return {
        "seed": scene.seed,
        "split": scene.split,
        **json_of(scene),
        "exchanges": [{"prompt": item.prompt, "answer": item.answer} for item in exchanges],
    }
