"""What listens to an RLHF run, by what it wrote: samples as table, JSON lines and TensorBoard text; progress."""

import io
import json

import pytest
from rich.console import Console

from tests.worlds.language_models import actor, late_words, prompts, tokenizer
from vantage.callbacks import Csv, Progress
from vantage.language import RLHF, Evaluate, Samples, Sampling
from vantage.language.callbacks import print_table
from vantage.language.training import LanguageWorld, Sample
from vantage.recipe import PPO, Separate
from vantage.runs.progress import FACTS


def run() -> RLHF:
    return RLHF(
        actor(), late_words, PPO(), tokenizer=tokenizer(), batch_size=8, sampling=Sampling(max_new_tokens=5),
        optim=Separate(actor_lr=1e-2, critic_lr=1e-2),
    )  # fmt: skip


def test_samples_are_logged(tmp_path, capsys):
    rlhf, path = run(), tmp_path / "samples.jsonl"
    rlhf.learn(prompts(), total_episodes=16, callbacks=[Samples(every=8, n=2, path=path, tensorboard=tmp_path)])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["episode"] for line in lines] == [8, 8, 16, 16]
    last = [(sample.prompt, sample.completion, sample.score) for sample in rlhf.world.samples[:2]]
    assert [(line["prompt"], line["completion"], line["score"]) for line in lines[2:]] == last
    shown = capsys.readouterr().out.split()
    assert {word for _, completion, _ in last for word in completion.split()} <= set(shown)
    assert {f"{score:.3g}" for *_, score in last} <= set(shown)
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    told = board.EventAccumulator(str(tmp_path)).Reload().Tensors("completions/text_summary")
    assert [event.step for event in told] == [8, 16]
    text = told[1].tensor_proto.string_val[0].decode()
    assert all(f"{prompt} | {completion} | {score:.3g}" in text for prompt, completion, score in last)


def test_what_a_model_wrote_is_no_markup(capsys):
    print_table([Sample(prompt="[red]x", completion="[/b] [link=y]", score=1.0)], "title")
    assert "[/b] [link=y]" in capsys.readouterr().out


def test_a_resumed_run_drops_samples_behind_its_checkpoint(tmp_path):
    path, world = tmp_path / "samples.jsonl", run().world
    world.steps = 8
    path.write_text('{"episode": 8}\n{"episode": 16}\n{"epi')
    Samples(path=path).on_start(world, PPO(), 16)
    assert path.read_text() == '{"episode": 8}\n'


def test_progress_counts_completions():
    out = io.StringIO()
    rlhf = run()
    listeners = [Evaluate(rlhf, prompts(4, seed=9), every=8), Progress(Console(file=out, width=200))]
    row = rlhf.learn(prompts(), total_episodes=24, callbacks=listeners).final
    lines = out.getvalue().splitlines()
    assert [line.split(" completions")[0].strip() for line in lines] == ["8", "16", "24"]
    assert "0:00:00 left" in lines[-1]
    for label, name, layout in FACTS["completions"]:
        assert f"{label} {layout.format(row[name])}" in lines[-1]


def test_another_process_than_the_first_writes_nothing(tmp_path, capsys, monkeypatch):
    rlhf, heard = run(), []
    monkeypatch.setattr(LanguageWorld, "first", False)
    quiet = [Samples(every=8, path=tmp_path / "samples.jsonl"), Csv(tmp_path / "metrics.csv"), Progress()]
    rlhf.learn(prompts(), total_episodes=16, callbacks=[*quiet, lambda update: heard.append(update.steps)])
    assert heard == [8, 16]
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""
