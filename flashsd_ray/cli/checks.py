"""What can be wrong with an installation, one function each; a check says what it found and never raises."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Literal

from flashsd_ray import __version__
from flashsd_ray.cli.demo import CLIPS, clip_names
from flashsd_ray.config import Config
from flashsd_ray.errors import FlashSDError

REQUIRED = ("torch", "transformers", "tokenizers", "safetensors", "av", "numpy", "pillow", "rich")
FOR_VIDEO_FAMILIES = ("torchvision", "num2words")
ASSETS = CLIPS.parent
EQUALITY_TOKENS = 64

Status = Literal["ok", "note", "FAIL"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    name: str
    status: Status
    detail: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def findings(config: Config, says: Callable[[str], None], address: str = "") -> Iterator[Finding]:
    """Every check in turn; ``says`` is told what is being looked at. With an address a Ray cluster is looked at too."""
    from flashsd_ray.cli.service_checks import service_checks

    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "versions": versions,
        "devices": devices,
        "video codecs": codecs,
        "video families": video_families,
        "bundled files": assets,
        **service_checks(config, address),
        "equality": lambda: equality(config),
    }
    for name, check in checks.items():
        says(f"checking {name}")
        try:
            yield from check()
        except FlashSDError as error:
            yield Finding(name, "FAIL", str(error))
        except Exception as error:  # noqa: BLE001 - a doctor that dies of the disease is no help
            yield Finding(name, "FAIL", f"{type(error).__name__}: {error}")


def versions() -> Iterator[Finding]:
    """Python and the libraries that are always needed."""
    yield Finding("flashsd_ray", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    installed = {name: _version(name) for name in REQUIRED}
    missing = [name for name, version in installed.items() if version is None]
    detail = ", ".join(f"{name} {version}" for name, version in installed.items() if version)
    yield (
        Finding("libraries", "FAIL", f"missing: {', '.join(missing)}")
        if missing
        else Finding("libraries", "ok", detail)
    )


def devices() -> Iterator[Finding]:
    """Where models can run, and in which dtype they would."""
    import torch

    from flashsd_ray.bench.machine import provenance
    from flashsd_ray.models.pretrained import has_fast_bfloat16, resolve_dtype

    machine = provenance()
    default = str(resolve_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    speed = "bfloat16 in hardware" if has_fast_bfloat16() else "no bfloat16 instructions"
    yield Finding("cpu", "ok", f"{machine['processor']}, {machine['cores']} cores, {speed}, default dtype {default}")
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        yield Finding(f"cuda:{index}", "ok", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB")
    if not torch.cuda.is_available():
        yield Finding("gpu", "note", "none that torch can use; everything runs on the CPU")


def codecs() -> Iterator[Finding]:
    """Which videos can be decoded."""
    from flashsd_ray.media.codecs import decoders, ffmpeg_version

    known = decoders()
    missing = [name for name, is_there in known.items() if not is_there]
    detail = f"FFmpeg {ffmpeg_version()}: {', '.join(name for name in known if name not in missing)}"
    if missing:
        detail += f"; not {', '.join(missing)}"
    yield Finding("video codecs", "FAIL" if "h264" in missing else ("note" if missing else "ok"), detail)


def video_families() -> Iterator[Finding]:
    """Whether the processors of the video families can work."""
    from flashsd_ray.models.torchvision_cpu import ensure_torchvision_imports

    installed = {name: _version(name) for name in FOR_VIDEO_FAMILIES}
    missing = [name for name, version in installed.items() if version is None]
    if missing:
        detail = f"LLaVA 1.5 works; the others need {', '.join(missing)}: pip install 'flashsd_ray[families]'"
        yield Finding("video families", "note", detail)
    elif not ensure_torchvision_imports():
        yield Finding(
            "video families", "FAIL", f"torchvision {installed['torchvision']} cannot be imported beside torch"
        )
    else:
        yield Finding("video families", "ok", ", ".join(f"{name} {version}" for name, version in installed.items()))


def assets() -> Iterator[Finding]:
    """Whether the bundled models, drafters and clips are whole."""
    from flashsd_ray.config import MediaConfig
    from flashsd_ray.media import load_visual

    for path in sorted(ASSETS.rglob("*.json")):
        json.loads(path.read_text(encoding="utf-8"))
    weights = sorted(ASSETS.rglob("*.safetensors"))
    if not any(path.parent == ASSETS / "target" for path in weights):
        yield Finding("bundled files", "FAIL", "the demo target has no weights")
        return
    num_tensors = sum(_count_tensors(path) for path in weights)
    for name in clip_names():
        load_visual(CLIPS / name, MediaConfig(), num_frames=2)
    size = sum(path.stat().st_size for path in weights) / 1e6
    drafters = sorted(path.parent.name for path in weights if path.parent.parent.name == "drafters")
    detail = (
        f"{num_tensors} tensors, {size:.0f} MB, {len(clip_names())} clips, drafters: {', '.join(drafters) or 'none'}"
    )
    yield Finding("bundled files", "ok", detail)


def dtypes(config: Config) -> list[str]:
    """In which dtypes equality is tried: for a model that may be large, only in the one that was asked for."""
    from flashsd_ray.models.pretrained import BUNDLED_TARGETS, resolve_device, resolve_dtype

    chosen = str(resolve_dtype(config.model.dtype, resolve_device(config.model.device))).removeprefix("torch.")
    return list(dict.fromkeys(["float32", chosen])) if config.model.name in BUNDLED_TARGETS else [chosen]


def equality(config: Config) -> Iterator[Finding]:
    """Whether FLASH decoding gives the tokens of plain decoding here, in every dtype that matters."""
    for dtype in dtypes(config):
        yield from equality_in(config, dtype)


def equality_in(config: Config, dtype: str) -> Iterator[Finding]:
    """What was loaded, and whether outputs are identical with it."""
    from flashsd_ray.cli.compare import compare, explanation
    from flashsd_ray.cli.loading import load_engine, origin_of
    from flashsd_ray.cli.tasks import Question, Task
    from flashsd_ray.types import SamplingParams

    engine = load_engine(replace(config, model=replace(config.model, dtype=dtype)))  # type: ignore[arg-type]
    question = Question(media=config.media, prompt=None, sampling=SamplingParams(max_new_tokens=EQUALITY_TOKENS))
    read = question.read(Task(paths=(str(CLIPS / clip_names()[0]),)), "doctor")
    if read.request is None:
        raise read.error or RuntimeError("the clip could not be read")
    result = compare(engine, read.request, repeats=2)
    origin = origin_of(engine)
    loaded = f"{origin.model} ({engine.target.family.name}), drafter {origin.drafter}, compressor {origin.compressor}"
    yield Finding(f"model in {dtype}", "ok", f"{loaded}, on {origin.device}")
    status: Status = "ok" if result.is_identical else ("FAIL" if dtype == "float32" else "note")
    detail = f"output identical: {result.verdict()}, tau {result.flash.stats.tau:.2f}, {result.flash.tokens_per_s:.0f} tokens/s"
    why = explanation(result, dtype)
    yield Finding(f"equality in {dtype}", status, f"{detail}; {why}" if why else detail)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _count_tensors(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as opened:  # fails when the file is shorter than its header says
        return len(list(opened.keys()))
