"""Prompts: every source gives the same rows, every fault is named, and the order is a pure function."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.unit._tokens import TEMPLATE, tokenizer
from vantage.language import data

ROWS = [
    {"prompt": "the cat sat", "answer": 1},
    {"prompt": "a dog", "answer": 2},
    {"prompt": "it ran far .", "answer": 3},
]
CHAT = [{"role": "user", "content": "the cat"}]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def parquet(path, rows):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_every_source_gives_the_same(tmp_path):
    datasets = pytest.importorskip("datasets")
    sources = [
        ROWS,
        jsonl(tmp_path / "p.jsonl", ROWS),
        str(tmp_path / "p.jsonl"),
        parquet(tmp_path / "p.parquet", ROWS),
        datasets.Dataset.from_list(ROWS),
    ]
    tok = tokenizer()
    for source in sources:
        found = data.load(source, tok)
        assert found.prompts == tuple(row["prompt"] for row in ROWS)
        assert found.columns == {"answer": [1, 2, 3]}
        assert [tok.decode(ids) for ids in found.ids] == [row["prompt"] for row in ROWS]
    assert data.load([row["prompt"] for row in ROWS], tok).ids == found.ids
    assert data.load(found, tok) is found


def test_a_data_set_is_read_by_name(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    one, other = datasets.Dataset.from_list(ROWS), datasets.Dataset.from_list(ROWS[:1])
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=one, test=other).save_to_disk(tmp_path / "parts")
    folders = {"one": 3, "parts": 3, "parts:test": 1}
    assert {name: len(data.named(f"{tmp_path}/{name}")) for name in folders} == folders
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: asked.append((name, split)) or one)
    assert data.load(data.named("someone/texts"), tokenizer()).columns == {"answer": [1, 2, 3]}
    data.named("someone/texts:test[:100]")
    assert asked == [("someone/texts", "train"), ("someone/texts", "test[:100]")]
    with pytest.raises(ValueError, match=r"parts:dev is no data set .*: give a \.jsonl"):
        data.named(f"{tmp_path}/parts:dev")


def test_messages_go_through_the_template():
    tok = tokenizer(template=TEMPLATE)
    found = data.load([{"prompt": CHAT}], tok)
    assert tok.decode(found.ids[0]) == "<user> the cat <e> <assistant>"
    begun = [*CHAT, {"role": "assistant", "content": "a mat"}]
    assert tok.decode(data.load([begun], tok).ids[0]) == "<user> the cat <e> <assistant> a mat"
    assert data.completions(found.prompts, ["sat"]) == [[{"role": "assistant", "content": "sat"}]]
    assert data.completions(("the",), ["sat"]) == ["sat"]


def test_a_tokenizer_that_ends_every_text_does_not_end_the_prompt():
    from tokenizers.processors import TemplateProcessing

    tok = tokenizer()
    tok.backend_tokenizer.post_processor = TemplateProcessing(single="$A <e>", special_tokens=[("<e>", 1)])
    assert tok("the cat")["input_ids"][-1] == 1
    assert tok.decode(data.load(["the cat"], tok).ids[0]) == "the cat"
    assert data.load(["the cat <e>"], tok).ids[0][-1] == 1, "what the user wrote stays"


def test_pad_falls_back_to_the_end_of_sequence():
    assert data.pad_id(tokenizer()) == 0
    assert data.pad_id(tokenizer(pad=None)) == 1


def test_overlong_prompts():
    tok = tokenizer()
    with pytest.raises(
        ValueError, match=r"row 2, column 'prompt' has 4 tokens, more than max_prompt_tokens = 3: raise"
    ):
        data.load(ROWS, tok, max_prompt_tokens=3)
    with pytest.warns(UserWarning, match="1 of 3 prompts are longer than 3 tokens: left out"):
        found = data.load(ROWS, tok, max_prompt_tokens=3, overlong="drop")
    assert found.columns == {"answer": [1, 2]}
    assert tok.decode(data.load(ROWS, tok, max_prompt_tokens=3, overlong="cut").ids[2]) == "ran far ."


BAD = {
    "nothing": ([], "there is not one prompt"),
    "one text": ("the cat", "prompts is one text"),
    "a dict": ({"train": ROWS}, "prompts is a dict: .* one split"),
    "a stream": ((row for row in ROWS), "prompts is a generator: .*not a streamed one"),
    "no prompt": ([*ROWS, {"text": "a"}], "row 3 has no column 'prompt', only text: rename one"),
    "empty": (["the", "  "], "row 1, column 'prompt' is empty"),
    "a number": ([{"prompt": 3}], "row 0, column 'prompt' is a int: give a text"),
    "no messages": ([[]], "row 0, column 'prompt' has no message"),
    "no role": ([[{"content": "a"}]], "row 0, column 'prompt' has .* which is no message"),
    "mixed": (["the", CHAT], "row 1, column 'prompt' is a list of messages but row 0 is a text"),
    "columns differ": ([ROWS[0], {"prompt": "a"}], "row 1 and row 0 differ in column 'answer'"),
    "name taken": ([{"prompt": "a", "completions": 1}], "column 'completions' has a name .* rename it"),
    "no template": ([CHAT], "the tokenizer has no chat template: set tokenizer.chat_template"),
    "not there": ("nowhere.jsonl", "nowhere.jsonl does not exist"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_fault_is_named(case):
    source, message = BAD[case]
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        data.load(source, tokenizer())


def test_a_fault_in_a_file_is_named(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n\n{"prompt": \n')
    with pytest.raises(ValueError, match=r"p\.jsonl, line 3 is not JSON .* one JSON object a line"):
        data.load(tmp_path / "p.jsonl", tokenizer())
    pytest.importorskip("pyarrow")
    (tmp_path / "p.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"p\.parquet is no Parquet file .*: write it again, or give a \.jsonl file"):
        data.load(tmp_path / "p.parquet", tokenizer())
    with pytest.raises(TypeError, match="row 1, column 'prompt' is a NoneType: give a text"):
        data.load(parquet(tmp_path / "p.parquet", [*ROWS[:1], {"prompt": None, "answer": 2}]), tokenizer())
    (tmp_path / "p.csv").write_text("prompt\na\n")
    with pytest.raises(ValueError, match=r"p\.csv is neither \.jsonl nor \.parquet"):
        data.load(tmp_path / "p.csv", tokenizer())


def test_a_tokenizer_without_pad_and_end_is_refused():
    with pytest.raises(ValueError, match=r"no pad and no eos token: set tokenizer\.pad_token"):
        data.load(["the"], tokenizer(pad=None, eos=None))


def test_the_order_is_a_pure_function_of_seed_and_epoch():
    stream = data.rows(7, 0, 20, 5)
    for epoch in range(4):
        assert sorted(stream[5 * epoch : 5 * epoch + 5]) == list(range(5))
        np.testing.assert_array_equal(stream[5 * epoch : 5 * epoch + 5], data.epoch_order(7, epoch, 5))
    for start, count in ((0, 3), (3, 4), (4, 9), (13, 7)):
        np.testing.assert_array_equal(data.rows(7, start, count, 5), stream[start : start + count])
    assert not np.array_equal(data.rows(7, 0, 5, 5), data.rows(7, 5, 5, 5)), "each epoch has its own order"
    assert not np.array_equal(data.rows(8, 0, 20, 5), stream)
