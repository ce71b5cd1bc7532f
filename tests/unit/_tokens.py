"""A tokenizer made in memory, for tests of the language world."""

from typing import Any

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "dog",
    "ran",
    "far",
    "good",
    "bad",
    "very",
    "not",
    "is",
    "was",
    "it",
    ".",
    "!",
]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <e> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def tokenizer(*, pad: str | None = "<p>", eos: str | None = "<e>", template: str | None = None) -> Any:
    """Words apart by spaces; ids: <p> 0, <e> 1, <user> 2, <assistant> 3, <u> 4, then WORDS."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {w: i for i, w in enumerate(["<p>", "<e>", "<user>", "<assistant>", "<u>", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<u>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<u>")
    if pad:
        found.pad_token = pad
    if eos:
        found.eos_token = eos
    found.chat_template = template
    return found
