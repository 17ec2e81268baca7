"""Clips as real H.264 files, as a camera would have written them."""

import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from flashsd_ray.training.world.language import TASKS, converse
from flashsd_ray.training.world.render import even_moments, render_clip
from flashsd_ray.training.world.scene import Scene, Split, sample_scene

FRAMES_PER_SECOND = 24
CONSTANT_RATE_FACTOR = "23"


def write_video(scene: Scene, path: Path, *, size_px: int = 384) -> None:
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


def export_clips(out_dir: Path, split: Split, seeds: Iterable[int], *, size_px: int) -> list[Path]:
    """One video per seed and `clips.json`, which says what is true of each, lie in `out_dir`."""
    out_dir.mkdir(parents=True, exist_ok=True)
    paths, truths = [], {}
    for seed in seeds:
        scene = sample_scene(seed, split)
        path = out_dir / f"{scene.place}-{split}-{seed}.mp4"
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
        "place": scene.place,
        "time_of_day": scene.time_of_day,
        "weather": scene.weather,
        "objects": [
            {
                "kind": group.kind,
                "count": group.count,
                "is_large": group.is_large,
                "motion": group.motion,
                "lane": group.lane,
                "column": group.column,
                "enters_halfway": group.enters_halfway,
            }
            for group in scene.groups
        ],
        "exchanges": [{"prompt": item.prompt, "answer": item.answer} for item in exchanges],
    }
