"""The target's tokenizer: byte-level BPE over the town's language, with a chat template."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from flashsd_ray.training.town.language import TASKS, converse
from flashsd_ray.training.town.staging import sample_scene

CORPUS_SCENES = 6000
VOCABULARY_SIZE = 2048  # at most; merges end where words are whole
PAD, BOS, EOS, IMAGE, USER, ASSISTANT = (
    "<pad>",
    "<s>",
    "</s>",
    "<image>",
    "<user>",
    "<assistant>",
)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<assistant>{% else %}<user>{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of the town's language that can still spell any text, byte by byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, BOS, EOS, IMAGE, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=[IMAGE, USER, ASSISTANT],
        model_max_length=2048,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def stage_tokenizer(out_dir: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of this run: trained once, then read back, for ids must outlive the language's edits."""
    folder = out_dir / "tokenizer"
    if not folder.exists():
        train_tokenizer().save_pretrained(folder)
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer


def first_word_token(tokenizer: PreTrainedTokenizerFast, words: str) -> int:
    """The id of the first word of `words` as it stands inside a sentence."""
    return int(tokenizer.encode(f" {words}", add_special_tokens=False)[0])


def _corpus() -> Iterator[str]:
    for seed in range(CORPUS_SCENES):
        scene = sample_scene(seed, "train")
        for task in TASKS:
            exchange = converse(scene, task, 0)
            yield exchange.prompt
            yield exchange.answer
