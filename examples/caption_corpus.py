"""Caption videos as one step of a Ray Data pipeline, and plot what came of it: python examples/caption_corpus.py VIDEOS OUT.

``flashsd batch VIDEOS --output OUT`` does the same, resumes, and writes a report of its own; this is for pipelines of yours.
"""

# ruff: noqa: T201

import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import ray

from flashsd_ray.batch import Job, caption_dataset
from flashsd_ray.types import SamplingParams

videos, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)

# A lane and a task that reads clips take a CPU each.
ray.init(num_cpus=max(2, os.cpu_count() or 1), include_dashboard=False, logging_level="ERROR", log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
rows = ray.data.from_items([{"path": str(path), "folder": path.parent.name} for path in sorted(videos.rglob("*.mp4"))])
job = Job(prompts=("Describe the video in detail.",), sampling=SamplingParams(max_new_tokens=96))
captions = caption_dataset(rows, job=job).to_pandas()
captions.to_parquet(out / "captions.parquet")

good = captions[captions.error == ""]
figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
axes[0].hist(good.num_tokens, bins=20)
axes[0].set(xlabel="tokens of a caption", ylabel="captions")
axes[1].hist(good.tau, bins=20)
axes[1].set(xlabel="tau: tokens that one verification commits")
stages = good[["read_s", "encode_s", "decode_s"]].sum()
axes[2].bar(["read", "encode", "decode"], stages)
axes[2].set(ylabel="seconds, all captions together")
figure.savefig(out / "captions.png", dpi=120)

print(
    f"{len(good)} captions, {len(captions) - len(good)} errors, mean tau {good.tau.mean():.2f}: {out / 'captions.png'}"
)
for row in good.head(3).itertuples():
    print(f"{Path(row.path).name}: {row.caption}")
