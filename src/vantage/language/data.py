"""Prompts: read from anywhere, checked once before any work, and shuffled by a pure function."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from warnings import warn

import numpy as np

from vantage.language.records import Prompts

Message = Mapping[str, Any]
Prompt = str | list[Message]
Source = Any
"""A list of texts or rows, a `datasets.Dataset`, or the path of a JSONL or Parquet file."""

PROMPT = "prompt"
"""The column that holds the prompt: text, or a list of messages."""
RESERVED = ("prompts", "completions", "completion", "completion_ids")
"""Names that a reward function receives from us, so no column may have them."""
ORDER = 64
"""Number of the random stream that shuffles; part of every result, so it never changes."""


def load(
    source: Source,
    tokenizer: Any,
    *,
    max_prompt_tokens: int | None = None,
    overlong: Literal["error", "drop", "cut"] = "error",
) -> Prompts:
    """Read, check and tokenise prompts: texts, rows with a `prompt` column, a `datasets.Dataset`, JSONL or Parquet.

    A prompt is a text, or a list of messages that the tokenizer's chat template renders. A prompt of more than
    `max_prompt_tokens` tokens is an error, or is dropped, or cut to its last tokens. Raises ValueError or TypeError
    naming row, column and remedy; FileNotFoundError if there is no such file. `Prompts` are returned as they are.
    """
    if isinstance(source, Prompts):
        return source
    if max_prompt_tokens is not None and max_prompt_tokens < 1:
        raise ValueError(f"max_prompt_tokens = {max_prompt_tokens}: a number of tokens, at least 1, or None")
    rows = _rows(source)
    if not rows:
        raise ValueError("there is not one prompt: give a list of texts, rows with a prompt column, or a file of them")
    pad_id(tokenizer)
    prompts = [_prompt(number, row) for number, row in enumerate(rows)]
    _check_alike(prompts)
    columns = _columns(rows)
    ids = _tokenised(prompts, tokenizer)
    keep = [number for number, row in enumerate(ids) if _fits(number, len(row), max_prompt_tokens, overlong)]
    if not keep:
        raise ValueError(f"every prompt is longer than max_prompt_tokens = {max_prompt_tokens}: raise it")
    if len(keep) < len(rows):
        number = len(rows) - len(keep)
        warn(f"{number} of {len(rows)} prompts are longer than {max_prompt_tokens} tokens: left out", stacklevel=2)
    cut = slice(None) if max_prompt_tokens is None else slice(-max_prompt_tokens, None)
    return Prompts(
        ids=tuple(tuple(ids[number][cut]) for number in keep),
        prompts=tuple(prompts[number] for number in keep),
        columns={name: [column[number] for number in keep] for name, column in columns.items()},
    )


def rows(seed: int, start: int, count: int, n: int) -> np.ndarray:
    """Rows number `start` to `start + count` of an endless stream in which each epoch is a new permutation of n rows.

    A pure function, so that the only state of the data is the number of prompts used so far.
    """
    numbers = np.arange(start, start + count)
    orders = {epoch: epoch_order(seed, int(epoch), n) for epoch in np.unique(numbers // n)}
    return np.array([orders[number // n][number % n] for number in numbers], dtype=np.int64)


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The permutation of n rows in an epoch: a function of (seed, epoch)."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, ORDER, epoch])).permutation(n)


def pad_id(tokenizer: Any) -> int:
    """The id that fills padding: the tokenizer's pad, or its end of sequence, which one boolean mask keeps apart.

    Raises ValueError if it has neither.
    """
    for found in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if found is not None:
            return int(found)
    raise ValueError("the tokenizer has no pad and no eos token: set tokenizer.pad_token to one of its tokens")


def completions(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[Any]:
    """Decoded texts as a reward function gets them: messages of the assistant where the prompts are messages."""
    conversational = len(prompts) > 0 and isinstance(prompts[0], list)
    return [[{"role": "assistant", "content": text}] for text in texts] if conversational else list(texts)


def prompt_ids(prompt: Prompt, tokenizer: Any) -> list[int]:
    """The token ids of one prompt, ready to be continued; messages go through the tokenizer's chat template."""
    if isinstance(prompt, str):
        ids = list(tokenizer(prompt)["input_ids"])
        # A tokenizer that ends every text would ask the model to go on after the end of the sequence.
        ended = ids[-1:] == [tokenizer.eos_token_id]
        bare = ended and tokenizer(prompt, add_special_tokens=False)["input_ids"][-1:] != ids[-1:]
        return ids[:-1] if bare else ids
    ours = prompt[-1]["role"] == "assistant"
    return list(
        tokenizer.apply_chat_template(
            list(prompt), add_generation_prompt=not ours, continue_final_message=ours, tokenize=True, return_dict=True
        )["input_ids"]
    )


def named(name: str) -> Any:
    """The data set of this name: a folder that `save_to_disk` wrote, or `owner/name[:split]` of the Hugging Face hub.

    The split is `train` unless given. Raises ValueError, with what the `datasets` library said, if there is none.
    """
    import datasets

    where, _, split = name.partition(":")
    try:
        if not Path(where).is_dir():
            return datasets.load_dataset(where, split=split or "train")
        found = datasets.load_from_disk(where)
        return found[split or "train"] if isinstance(found, datasets.DatasetDict) else found
    except Exception as error:  # the library has no class of its own for all that can be wrong
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{name} is no data set that can be read ({said}): give a .jsonl or .parquet file, a folder that "
            "save_to_disk wrote, or owner/name:split"
        ) from error


def _rows(source: Source) -> list[Any]:
    if isinstance(source, Path) or (isinstance(source, str) and is_path(source)):
        return _read(Path(source))
    if isinstance(source, str):
        raise TypeError("prompts is one text: give a list of texts, or the path of a .jsonl or .parquet file")
    if isinstance(source, Mapping):
        raise TypeError("prompts is a dict: give a list of rows, each with a prompt column, or one split of a data set")
    if not (hasattr(source, "__len__") and hasattr(source, "__iter__")):
        raise TypeError(
            f"prompts is a {type(source).__name__}: give a list, a datasets.Dataset (not a streamed one), or a path"
        )
    return list(source)


def is_path(text: str) -> bool:
    """Whether this is the name of a file of prompts, by its ending."""
    return Path(text).suffix in (".jsonl", ".parquet", ".json", ".csv") and "\n" not in text


def _read(path: Path) -> list[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a .jsonl or .parquet file with a prompt column")
    if path.suffix == ".parquet":
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        try:
            return parquet.read_table(path).to_pylist()
        except arrow.ArrowInvalid as error:
            raise ValueError(f"{path} is no Parquet file ({error}): write it again, or give a .jsonl file") from error
    if path.suffix != ".jsonl":
        raise ValueError(f"{path} is neither .jsonl nor .parquet: write one JSON object a line, with a prompt column")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_json(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _json(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number} is not JSON ({error.msg}): write one JSON object a line") from error


def _prompt(number: int, row: Any) -> Prompt:
    found = row
    if isinstance(row, Mapping):
        if PROMPT not in row:
            raise ValueError(
                f"row {number} has no column 'prompt', only {', '.join(map(str, row))}: rename one of them"
            )
        found = row[PROMPT]
    if isinstance(found, str):
        if not found.strip():
            raise ValueError(f"row {number}, column 'prompt' is empty: a model needs a token to begin with")
        return found
    if not isinstance(found, list):
        raise TypeError(f"row {number}, column 'prompt' is a {type(found).__name__}: give a text or a list of messages")
    return _messages(number, found)


def _messages(number: int, found: list[Any]) -> list[Message]:
    if not found:
        raise ValueError(f"row {number}, column 'prompt' has no message: give at least one of the user")
    for message in found:
        # `content` may be missing or None where the message holds tool calls.
        if not (isinstance(message, Mapping) and isinstance(message.get("role"), str)):
            raise ValueError(
                f"row {number}, column 'prompt' has {message!r}, which is no message: "
                'give {"role": "user", "content": "…"}'
            )
    return found


def _check_alike(prompts: list[Prompt]) -> None:
    conversational = isinstance(prompts[0], list)
    for number, prompt in enumerate(prompts):
        if isinstance(prompt, list) != conversational:
            kinds = ("a text", "a list of messages")
            raise TypeError(
                f"row {number}, column 'prompt' is {kinds[isinstance(prompt, list)]} but row 0 is "
                f"{kinds[conversational]}: give all in one form"
            )


def _columns(rows: list[Any]) -> dict[str, list[Any]]:
    first = rows[0]
    if not isinstance(first, Mapping):
        return {}
    names = [str(name) for name in first if name != PROMPT]
    for name in names:
        if name in RESERVED:
            raise ValueError(f"column {name!r} has a name that reward functions get from us: rename it")
    for number, row in enumerate(rows):
        odd = sorted({str(name) for name in row} ^ {PROMPT, *names}) if isinstance(row, Mapping) else names
        if odd:
            raise ValueError(f"row {number} and row 0 differ in column {odd[0]!r}: give every row the same columns")
    return {name: [row[name] for row in rows] for name in names}


def _tokenised(prompts: list[Prompt], tokenizer: Any) -> list[list[int]]:
    if isinstance(prompts[0], list) and not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "the prompts are lists of messages but the tokenizer has no chat template: "
            "set tokenizer.chat_template, or give texts"
        )
    found = []
    for number, prompt in enumerate(prompts):
        ids = prompt_ids(prompt, tokenizer)
        if not ids:
            raise ValueError(f"row {number}, column 'prompt' has no tokens ({prompt!r}): leave it out")
        found.append(ids)
    return found


def _fits(number: int, length: int, limit: int | None, overlong: str) -> bool:
    """Whether a prompt is kept; raises ValueError where that is what was asked for."""
    if limit is None or length <= limit or overlong == "cut":
        return True
    if overlong == "drop":
        return False
    raise ValueError(
        f"row {number}, column 'prompt' has {length} tokens, more than max_prompt_tokens = {limit}: raise it, shorten "
        'the prompt, or choose overlong="drop" or "cut"'
    )
