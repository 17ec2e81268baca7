"""The shape of the target: a CLIP vision tower and a Llama text model, joined as LLaVA."""

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

IMAGE_SIZE = 96
PATCH_SIZE = 16
PATCHES_PER_SIDE = IMAGE_SIZE // PATCH_SIZE
PATCHES_PER_FRAME = PATCHES_PER_SIDE**2
FRAMES_PER_CLIP = 8


def vision_config() -> CLIPVisionConfig:
    """A six-layer tower over 6 x 6 patches."""
    return CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=3,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=192,
        hidden_act="gelu_pytorch_tanh",
    )


def text_config(vocab_size: int, pad: int, bos: int, eos: int) -> LlamaConfig:
    """A ten-layer decoder with one key-value head and tied embeddings."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=320,
        intermediate_size=768,
        num_hidden_layers=10,
        num_attention_heads=5,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )


def target_config(vocab_size: int, *, pad: int, bos: int, eos: int, image: int) -> LlavaConfig:
    """The whole target; every patch of the last vision layer becomes one visual token."""
    return LlavaConfig(
        vision_config=vision_config(),
        text_config=text_config(vocab_size, pad, bos, eos),
        image_token_index=image,
        projector_hidden_act="gelu",
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        image_seq_length=PATCHES_PER_FRAME,
        tie_word_embeddings=True,
    )
