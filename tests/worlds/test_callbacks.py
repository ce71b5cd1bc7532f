"""Callbacks: what they do, when, and that training does not notice them."""

import json
import sys
import time
from types import SimpleNamespace

import jaxtyping
import numpy as np
import pytest

import vantage as vt
from tests.worlds.test_resume import agent, assert_same
from vantage import loop
from vantage.callbacks import (
    Callback,
    Checkpoints,
    Csv,
    Each,
    Episodes,
    Evaluate,
    JsonLines,
    Profile,
    RecordVideo,
    StopAfterEpisodes,
    StopAtReward,
    StopWithoutImprovement,
    TensorBoard,
    Update,
    WandB,
    ended,
)
from vantage.loop import Report
from vantage.runs import video
from vantage.runs.log import read

HIGH = [3.0, 5.0, 4.0, 5.0, 1.0]
"""Mean rewards of the evaluations of a scripted agent: best at the 2nd."""


class Played:
    def __init__(self, mean):
        self.mean, self.lengths = mean, (2, 4)


class Scripted:
    """An agent whose evaluations are known beforehand; it notes what was asked of it."""

    def __init__(self, means=HIGH):
        self.means, self.saved, self.asked = iter(means), [], []

    def evaluate(self, **how):
        self.asked.append(how)
        return Played(next(self.means))

    def save(self, path):
        self.saved.append(path)


class World:
    """Only says how many steps were taken."""

    def __init__(self, steps=0):
        self.steps, self.updates, self.beta = steps, 0, None

    def collect(self, recipe): ...
    def update(self, recipe, rollout, progress): ...
    def exact(self): ...
    def cut(self): ...
    def state(self): ...
    def restore(self, state): ...
    def close(self): ...


def update(steps, **metrics):
    made = object.__new__(Update)
    vars(made).update(steps=steps, metrics={name.replace("_", "/", 1): x for name, x in metrics.items()}, events=[])
    return made


def run(callback, all_steps, start=0):
    """The updates at which the callback acted, and whether it ended the run."""
    callback.on_start(World(start), vt.PPO(), 100)
    return [callback.on_update(update(steps)) for steps in all_steps]


def test_each_is_called_at_the_first_update_at_or_beyond_a_multiple():
    seen = []
    run(Each(lambda u: seen.append(u.steps), every=10), [4, 8, 12, 16, 20, 45, 49])
    assert seen == [12, 20, 45]
    seen.clear()
    run(Each(lambda u: seen.append(u.steps), every=10), [16, 20], start=12)  # resumed at 12: 12 is not called again
    assert seen == [20]
    seen.clear()
    run(Each(lambda u: seen.append(u.steps)), [4, 8])
    assert seen == [4, 8]
    assert run(Each(lambda u: u.steps < 8), [4, 8]) == [True, False]
    with pytest.raises(ValueError, match="every = 0"):
        Each(lambda u: None, every=0)


def test_evaluate_measures_and_keeps_the_best(tmp_path):
    trainee, heard, best = Scripted(), [], []
    callback = Evaluate(
        trainee, every=1, episodes=7, seed=3, best=tmp_path / "best",
        on_evaluation=lambda u: heard.append(u.metrics["eval/mean_reward"]), on_new_best=lambda u: best.append(u.steps),
    )  # fmt: skip
    callback.on_start(World(), vt.PPO(), 5)
    updates = [update(steps) for steps in range(1, 6)]
    assert [callback.on_update(u) for u in updates] == [None] * 5
    assert [u.metrics["eval/mean_reward"] for u in updates] == heard == HIGH
    assert updates[0].metrics["eval/mean_ep_length"] == 3.0
    assert best == [1, 2]
    assert trainee.saved == [tmp_path / "best"] * 2
    assert trainee.asked[0] == {"episodes": 7, "deterministic": True, "seed": 3}
    assert callback.highest == 5.0


def test_a_resumed_evaluation_knows_the_best_so_far():
    trainee = Scripted([4.0, 6.0])
    callback = Evaluate(trainee, every=1, best="x", rows=[{"eval/mean_reward": 5.0}, {}])
    run(callback, [1, 2])
    assert len(trainee.saved) == 1


def test_hooks_of_an_evaluation_can_end_the_run():
    assert run(Evaluate(Scripted(), every=1, on_new_best=lambda u: u.steps < 2), [1, 2, 3]) == [None, False, None]


def test_stop_at_reward():
    stop = StopAtReward(5.0)
    seen = [stop.on_update(update(1, eval_mean_reward=x)) for x in (4.9, 5.0)]
    assert [*seen, stop.on_update(update(1))] == [None, False, None]


def test_stop_without_improvement():
    def stops(patience, rows=()):
        stop = StopWithoutImprovement(patience, rows=rows)
        return [stop.on_update(update(1, eval_mean_reward=x)) is False for x in HIGH]

    assert stops(2) == [False, False, False, True, True]  # 4 and the equal 5 do not improve on 5
    assert stops(3) == [False, False, False, False, True]
    assert stops(3, rows=[{"eval/mean_reward": 9.0}])[2]
    assert StopWithoutImprovement(1).on_update(update(1)) is None  # an update without evaluation does not count
    with pytest.raises(ValueError, match="patience = 0"):
        StopWithoutImprovement(0)


def test_training_does_not_notice(tmp_path):
    """Evaluation has its own environments and seeds, saving changes nothing: the same bits with and without."""
    plain, watched = agent("CartPole-v1"), agent("CartPole-v1")
    plain.learn(400)
    listeners = [
        Evaluate(watched, every=80, episodes=2, best=tmp_path / "best", deterministic=False),
        Checkpoints(watched, tmp_path / "all", every=160),
    ]
    report = watched.learn(400, listeners)
    assert_same(plain, watched)
    assert len(report.column("eval/mean_reward")) == 5
    files = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert files == ["step_160.safetensors", "step_320.safetensors"]
    assert vt.load(tmp_path / "all" / "step_160.safetensors").steps == 160
    best = vt.load(tmp_path / "best").evaluate(2, deterministic=False)
    assert np.isclose(best.mean, max(report.column("eval/mean_reward")))


def test_stopping_for_real():
    report = agent("CartPole-v1").learn(4000, [StopAtReward(5.0, "rollout/ep_rew_mean")])
    assert report.stopped == "callback"
    assert report.final["time/total_timesteps"] < 4000


def test_json_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    log = JsonLines(path)
    log.on_start(World(), vt.PPO(), 3)
    for steps in (1, 2, 3):
        log.on_update(update(steps, time_total_timesteps=float(steps), train_x=float("nan") if steps == 1 else 0.5))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["train/x"] for line in lines] == [None, 0.5, 0.5]
    with open(path, "a") as file:
        file.write('{"time/total_timest')  # torn by a crash
    log.on_start(World(2), vt.PPO(), 3)  # resumed behind step 2
    assert [json.loads(line)["time/total_timesteps"] for line in path.read_text().splitlines()] == [1, 2]
    log.on_start(World(0), vt.PPO(), 3)  # a new run begins a new file
    assert path.read_text() == ""


def test_wandb_is_offline_and_closed(monkeypatch):
    calls = []
    run = SimpleNamespace(
        log=lambda row, step: calls.append((row, step)), finish=lambda: calls.append("finish")
    )  # fmt: skip
    fake = SimpleNamespace(init=lambda **options: calls.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    log = WandB(project="x", config={"seed": 1})
    log.on_start(World(), vt.PPO(), 3)
    log.on_update(update(2, train_x=0.5))
    log.on_end(Report())
    assert calls[0]["mode"] == "offline"
    assert calls[0]["config"].items() >= {"seed": 1, "total_steps": 3}.items()
    assert calls[1:] == [({"train/x": 0.5}, 2), "finish"]


def test_wandb_that_is_not_installed_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'vantage\[wandb\]'"):
        WandB()


def test_a_function_is_a_callback():
    for callbacks in (lambda seen: False, [lambda seen: False]):
        trained = vt.Agent("CartPole-v1", vt.PPO(n_minibatches=1), n_envs=2, n_steps=8)
        report = trained.learn(10_000, callbacks)
        assert report.stopped == "callback"
        assert len(report.rows) == 1


def test_what_cannot_be_called_is_no_callback(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks of the tests would speak first
    with pytest.raises(TypeError, match="callbacks has <class"):
        loop.learn(World(), vt.PPO(), 10, [Report])
    with pytest.raises(TypeError, match="give Callback objects, or functions"):
        vt.Agent("CartPole-v1", vt.PPO(n_minibatches=1), n_envs=2, n_steps=8).learn(64, [3])


def test_steps_already_taken_are_no_goal():
    trained = vt.Agent("CartPole-v1", vt.PPO(n_minibatches=1), n_envs=2, n_steps=8)
    trained.learn(1)
    with pytest.raises(ValueError, match=r"1 steps are fewer than the .* already taken: total_steps counts from"):
        trained.learn(1)


class Ear(Callback):
    """Notes every event but steps, in a list that several share."""

    def __init__(self, name, heard, stop=None):
        self.name, self.heard, self.stop = name, heard, stop

    def _note(self, event):
        self.heard.append(f"{self.name} {event}")
        return event != self.stop

    def on_start(self, world, recipe, total_steps):
        self._note("start")

    def on_rollout(self, world, recipe, rollout):
        assert rollout.reward.shape == (8, 2)
        return self._note("rollout")

    def on_update(self, update):
        return self._note("update")

    def on_evaluation(self, update):
        assert "eval/mean_reward" in update.metrics
        return self._note("evaluation")

    def on_new_best(self, update):
        return self._note("new best")

    def on_end(self, report):
        self._note("end")


class Steps(Callback):
    """Counts the steps of the environments, and ends the run at one of them."""

    def __init__(self, until=10**9):
        self.seen, self.until = [], until

    def on_step(self, step):
        self.seen.append(step)
        return len(self.seen) < self.until


def tiny(**options):
    return vt.Agent("CartPole-v1", vt.PPO(n_minibatches=1, n_epochs=1), n_envs=2, n_steps=8, **options)


def test_events_come_in_order_and_all_hear_of_each():
    heard, means = [], Scripted([3.0, 1.0])
    report = tiny().learn(32, [Ear("a", heard), [Evaluate(means, every=16), Ear("b", heard)]])
    first = ["rollout", "update", "evaluation", "new best"]
    events = ["start", *first, "rollout", "update", "evaluation", "end"]
    assert heard == [f"{name} {event}" for event in events for name in "ab"]
    assert report.stopped is None
    assert report.seconds.keys() == {"collect", "update", "callbacks", "checkpoint"}
    assert sum(report.seconds.values()) <= report.final["time/time_elapsed"] + 1.0


@pytest.mark.parametrize("event", ["rollout", "update", "evaluation", "new best"])
def test_any_event_can_end_the_run(event):
    heard = []
    report = tiny().learn(1000, [Evaluate(Scripted(), every=1), Ear("a", heard, stop=event), Ear("b", heard)])
    assert (report.stopped, report.stopped_by, len(report.rows)) == ("callback", "Ear", 1)
    assert heard[-1] == "b end"
    assert "b new best" in heard  # the update goes to its end


def test_on_step_hears_every_step_and_changes_nothing():
    plain, watched, steps = tiny(), tiny(), Steps()
    plain.learn(32)
    watched.learn(32, [steps])
    assert_same(plain, watched)
    assert len(steps.seen) == 16
    assert np.shape(steps.seen[0].action) == (2,)
    assert np.shape(steps.seen[0].observation) == (2, 4)
    watched.learn(48)
    assert len(steps.seen) == 16  # taken away with the run


def test_on_step_can_end_the_run_after_its_update():
    report = tiny().learn(1000, [Steps(until=3)])
    assert (report.stopped, report.stopped_by, len(report.rows)) == ("callback", "Steps", 1)


def test_on_step_needs_a_world_that_steps_on_the_host():
    with pytest.raises(TypeError, match="Steps defines on_step, but this world takes its steps inside a compiled"):
        loop.learn(World(), vt.PPO(), 10, [Steps()])


def test_stop_after_episodes():
    agent_, counted = tiny(), []
    report = agent_.learn(10_000, [StopAfterEpisodes(5), lambda update: counted.append(ended(update.rollout))])
    assert report.stopped_by == "StopAfterEpisodes"
    assert report.column("rollout/episodes")[-1] == sum(counted)
    assert sum(counted[:-1]) < 5 <= sum(counted)
    assert sum(counted) == len(agent_.world._collector.episodes)  # the world's own count
    resumed = StopAfterEpisodes(8, rows=report.rows)
    assert resumed.ended == sum(counted)
    with pytest.raises(ValueError, match="episodes = 0"):
        StopAfterEpisodes(0)


@pytest.mark.parametrize("recipe", [vt.PPO(n_minibatches=1, n_epochs=1), vt.REINFORCE()], ids=["rows", "episodes"])
def test_each_episode_is_written_once(recipe, tmp_path):
    """Against the world's own count, with terminations and, by a limit of 12 steps, truncations."""
    trained = vt.Agent("CartPole-v1", recipe, n_envs=2, n_steps=10, max_episode_steps=12)
    trained.learn(160, Episodes(tmp_path / "episodes.csv"))
    lines = (tmp_path / "episodes.csv").read_text().splitlines()
    assert lines[0] == "steps,slot,return,length"
    found = [(float(total), int(length)) for _, _, total, length in (line.split(",") for line in lines[1:])]
    known = list(trained.world._collector.episodes)
    missing = sorted(known)
    for episode in found:
        missing.remove(episode)
    assert len(found) > 8
    assert len(missing) <= 2  # one a slot, over by a limit in the last row


def test_film_of_an_agent(tmp_path):
    watched = tiny()
    watched.learn(32, [RecordVideo(watched, tmp_path / "films", every=16, max_frames=3)])
    films = sorted((tmp_path / "films").iterdir())
    assert [film.name for film in films] == ["step_16.gif", "step_32.gif"]
    assert films[0].read_bytes()[:4] == b"GIF8"
    with pytest.raises(ValueError, match="kind = 'avi'"):
        RecordVideo(watched, tmp_path, kind="avi")


def test_film_as_mp4(tmp_path, monkeypatch):
    trained = tiny()
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ModuleNotFoundError, match=r"vantage\[video\]"):
        trained.learn(16, [RecordVideo(trained, tmp_path, every=16, kind="mp4")])
    monkeypatch.undo()
    writer = pytest.importorskip("imageio_ffmpeg")
    _, taken = video.record(trained, tmp_path / "a.mp4", max_frames=5)
    reader = writer.read_frames(str(tmp_path / "a.mp4"))
    told, shown = next(reader), list(reader)
    assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"
    assert (told["size"], told["fps"], len(shown)) == ((600, 400), 50.0, taken)


def test_an_mp4_shows_the_frames_it_was_given(tmp_path):
    writer = pytest.importorskip("imageio_ffmpeg")
    frames = [np.full((33, 47, 3), shade, np.uint8) for shade in (40, 200)]
    video.write_mp4(frames, tmp_path / "a.mp4", fps=10.0)
    reader = writer.read_frames(str(tmp_path / "a.mp4"))
    width, height = next(reader)["size"]
    shades = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    assert (width // 2, height // 2) == (24, 17)
    np.testing.assert_allclose(shades, [40, 200], atol=8)
    with pytest.raises(ValueError, match="no frame"):
        video.write_mp4([], tmp_path / "b.mp4")


def test_a_film_sees_what_the_agent_sees(tmp_path):
    """Wrapped and stacked as in training."""
    seeing = vt.Agent("CartPole-v1", wrappers={"TimeAwareObservation": {}}, frame_stack=2, n_envs=1, n_steps=8)
    assert video.record(seeing, tmp_path / "a.gif", max_frames=3)[1] == 3


def test_logs_of_a_run_that_goes_on(tmp_path):
    trained = tiny()
    trained.learn(64, [Csv(tmp_path / "log.csv")], checkpoint=tmp_path / "c", checkpoint_every=2)
    log = Csv(tmp_path / "log.csv")
    going_on = vt.Agent.resume(tmp_path / "c")
    going_on.learn(96, [log, TensorBoard(tmp_path / "board")])
    steps = [row["time/total_timesteps"] for row in read(tmp_path / "log.csv")]
    assert steps == sorted(set(steps))
    assert steps[-1] >= 96
    assert len(log.rows) == len(steps)
    assert list((tmp_path / "board").glob("events.out.tfevents.*"))


def test_a_profile_says_where_the_time_went():
    profile, plain, watched = Profile(), tiny(), tiny()
    plain.learn(96)

    class Slow(Callback):
        def on_step(self, step):
            time.sleep(0.002)

    watched.learn(96, [Slow(), profile])
    assert_same(plain, watched)
    assert profile.updates == 5
    assert profile.steps == 80
    assert profile.seconds.keys() == {"act", "step", "score", "record", "estimate", "update", "log"}
    assert profile.seconds["step"] >= 5 * 8 * 0.002  # 8 rows a rollout
    assert all(profile.seconds[part] > 0 for part in ("act", "score", "estimate", "update"))
    assert np.isclose(sum(row["share"] for row in profile.to_dict()["parts"]), 1.0)
    assert "steps/s over 5 updates" in str(profile)
    short = Profile()
    tiny().learn(8, [short])
    assert "at least two" in str(short)


def test_wandb_for_real_writes_into_the_folder_and_nothing_else(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "c"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "d"))
    tiny().learn(32, [WandB(project="test", dir=str(tmp_path))])
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
