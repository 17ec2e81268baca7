"""Projected patches speak the text model's words: each is classified against word embeddings."""

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from flashsd_ray.training.target.tokenizer import first_word_token
from flashsd_ray.training.town import teaching

BACKGROUND_SHARE = 0.25  # background patches count less


class GroundingLoss(nn.Module):
    """Cross entropy between projected patches and the words for what they show."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        for name, words in teaching.OBJECT_WORDS.items():
            self.register_buffer(f"{name}_ids", _word_ids(tokenizer, words))
        for index, words in enumerate(teaching.SCENE_WORDS):
            self.register_buffer(f"scene{index}_ids", _word_ids(tokenizer, words))

    def forward(
        self,
        scores: torch.Tensor,  # [B, F * P, V] float: projected patches against every word
        objects: torch.Tensor,  # [B, F, P, heads] int64
        scene: torch.Tensor,  # [B, scene heads] int64
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and the share of object patches whose best word is their object's name."""
        labels = objects.flatten(1, 2)
        kind = labels[..., 0]
        is_object, is_background = kind > 0, kind == 0
        heads = tuple(teaching.OBJECT_HEADS)
        log_probs = scores.float().log_softmax(dim=-1)
        seen = log_probs[is_object]
        object_loss = torch.zeros(())
        for name, weight in teaching.OBJECT_WEIGHTS.items():
            classes = labels[..., heads.index(name)][is_object] - 1
            words = self.get_buffer(f"{name}_ids")[classes]
            object_loss = object_loss - weight * seen.gather(1, words[:, None]).mean()
        behind = log_probs[is_background]
        scene_loss = torch.zeros(())
        for index, weight in enumerate(teaching.SCENE_WEIGHTS):
            classes = scene[:, index : index + 1].expand_as(kind)[is_background]
            words = self.get_buffer(f"scene{index}_ids")[classes]
            scene_loss = scene_loss - weight * behind.gather(1, words[:, None]).mean()
        names = self.get_buffer("kind_ids")[kind[is_object] - 1]
        hits = (scores[is_object].argmax(-1) == names).float().mean()
        return object_loss + BACKGROUND_SHARE * scene_loss, hits


def word_scores(model: LlavaForConditionalGeneration, projected: torch.Tensor) -> torch.Tensor:
    """Projected patches [B, N, H] scored against the vocabulary, as if they were hidden states."""
    normed = nn.functional.rms_norm(projected, projected.shape[-1:])
    return nn.functional.linear(normed, model.lm_head.weight)


def _word_ids(tokenizer: PreTrainedTokenizerFast, words: tuple[str, ...]) -> torch.Tensor:
    return torch.tensor([first_word_token(tokenizer, word) for word in words])
