"""The target as files that transformers' Auto classes load, written whole or not at all."""

import shutil
import tempfile
from pathlib import Path

from transformers import (
    CLIPImageProcessorPil,
    GenerationConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from flashsd_ray.training.target.architecture import IMAGE_SIZE, PATCH_SIZE, target_config
from flashsd_ray.training.target.tokenizer import CHAT_TEMPLATE, IMAGE

MAX_NEW_TOKENS = 192


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """An untrained target for this tokenizer."""
    config = target_config(
        _padded(len(tokenizer)),
        pad=tokenizer.pad_token_id,
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        image=tokenizer.encode(IMAGE, add_special_tokens=False)[0],
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
    )
    return model


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """A processor that turns each frame into one image of the tower's size."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = CLIPImageProcessorPil(
        size=size,
        crop_size=size,
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=1,
    )


def save_target(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, out_dir: Path) -> None:
    """The target lies in `out_dir` in bf16; readers never see half a file."""
    out_dir.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=out_dir.parent))
    try:
        copy = LlavaForConditionalGeneration(model.config)
        copy.load_state_dict(model.state_dict())
        copy.generation_config = model.generation_config
        copy.bfloat16().save_pretrained(staging)
        build_processor(tokenizer).save_pretrained(staging)
        for path in sorted(staging.iterdir()):
            path.chmod(0o644)
            path.replace(out_dir / path.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _padded(size: int) -> int:
    return -(-size // 64) * 64
