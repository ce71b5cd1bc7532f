"""Files of settings: what is written reads back as the same plan; what is typed comes first; errors name the remedy."""

from pathlib import Path

import pytest

import vantage as vt
from vantage.cli import UsageError, plan
from vantage.cli.config_file import merge, read, save
from vantage.control.defaults import TUNED

RECIPES = [
    vt.PPO(clip_range=vt.Linear(0.2, 0.05), clip_range_high=0.3, target_kl=0.01, n_epochs=3),
    vt.PPO(ent_coef=vt.Linear(0.01), whiten=None, critic=vt.ClippedValue(width=vt.Linear(1.0))),
    vt.PPOPenalty(beta=2.0, rule=vt.PaperTarget(target=0.003)),
    vt.PPOPenalty(rule=None, psi=vt.KStep(k=3)),
    vt.REINFORCE(psi=vt.RewardToGo(baseline=vt.BatchMean(leave_one_out=True)), whiten="batch"),
    vt.A2C(psi=vt.TDError(), critic=vt.ResidualTD(), reduction=vt.Constant(n=0.1 + 0.2)),
]
OPTIMS = [vt.Joint(lr=vt.Linear(1e-3), max_grad_norm=None), vt.Separate(actor_lr=1 / 3, critic_lr=vt.Linear(1e-2))]


def written(tmp_path, env="CartPole-v1", **settings) -> tuple[Path, plan.Plan]:
    from vantage.control import Settings

    chosen = plan.Plan(env=env, settings=Settings(**settings), total_steps=1234, given=frozenset())
    save(tmp_path / "a.toml", chosen)
    return tmp_path / "a.toml", chosen


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: type(r.objective).__name__)
@pytest.mark.parametrize("optim", OPTIMS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("env", ["CartPole-v1", "Unknown-v0"])
def test_what_is_written_reads_back(recipe, optim, env, tmp_path):
    """Also where other settings are tuned for the environment, and where none are."""
    path, chosen = written(tmp_path, env, recipe=recipe, optim=optim, gamma=0.97, seed=5, max_episode_steps=9)
    given = merge({"config": str(path)})
    found = plan.make(given["ENV"], given)
    assert found.settings == chosen.settings
    assert (found.env, found.total_steps) == (env, 1234)


def test_what_is_typed_comes_first(tmp_path):
    path, _ = written(tmp_path, recipe=vt.PPO(clip_range=0.1, n_epochs=3), gamma=0.9)
    given = merge({"config": str(path), "clip_range": 0.4, "steps": 5, "ENV": "Acrobot-v1"})
    found = plan.make(given["ENV"], given)
    assert found.settings.recipe == vt.PPO(clip_range=0.4, n_epochs=3)
    assert (found.settings.gamma, found.total_steps, found.env) == (0.9, 5, "Acrobot-v1")


def test_a_typed_recipe_replaces_the_algorithm_and_keeps_the_rest(tmp_path):
    path, _ = written(tmp_path, recipe=vt.PPO(clip_range=0.1, n_epochs=3), gamma=0.9)
    found = plan.make("Unknown-v0", merge({"config": str(path), "recipe": "a2c"})).settings
    assert found.recipe == vt.A2C()
    assert found.gamma == 0.9


def test_a_file_by_hand(tmp_path):
    path = tmp_path / "hand.toml"
    path.write_text('recipe = "ppo-penalty"\nbeta = 2\nhidden = [32, 16]\nlr = "lin_1e-3"\ntarget-kl = "none"\n'
                    'psi = "gae:lam=0.9"\nn_epochs = 4\nnormalise-observation = true\n')  # fmt: skip
    found = plan.make("Unknown-v0", merge({"config": str(path)})).settings
    assert found.recipe == vt.PPOPenalty(beta=2.0, gae_lambda=0.9, n_epochs=4)
    assert (found.network.hidden, found.optim.lr) == ((32, 16), vt.Linear(1e-3))
    assert found.normalise_observation


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("gama = 0.9", "did you mean gamma"),
        ("gamma = 'x'", "gamma = 'x': give number"),
        ("psi = {type = 'gaee'}", "type = one of"),
        ("psi = {type = 'gae', lamb = 1.0}", "did you mean lam"),
        ("gamma = {a = 1}", "no table"),
        ("gamma = ", "is not TOML"),
        ("psi = {type = 'gae', lam = 2.0}", "λ lies between"),
    ],
)
def test_errors_name_file_and_key(text, part, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=part) as error:
        read(path)
    assert "bad.toml" in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="--save-config"):
        read(tmp_path / "no.toml")


def test_an_entry_of_the_zoo(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "ppo.yml"
    path.write_text(
        "CartPole-v1:\n  n_envs: 8\n  n_timesteps: !!float 1e5\n  policy: 'MlpPolicy'\n  n_steps: 32\n  gamma: 0.98\n"
        "  batch_size: 256\n  gae_lambda: 0.8\n  n_epochs: 20\n  learning_rate: lin_0.001\n  clip_range: lin_0.2\n"
    )
    found = plan.make("CartPole-v1", merge({"config": str(path), "ENV": "CartPole-v1"}))
    known = plan.make("CartPole-v1", {"target_kl": None}).settings  # the zoo's entry but for what we have added
    assert found.settings == known
    assert found.total_steps == TUNED["CartPole-v1"].total_steps
    with pytest.raises(UsageError, match="it has CartPole-v1"):
        merge({"config": str(path), "ENV": "Other-v0"})


def test_what_an_entry_of_the_zoo_leaves_out_is_not_taken_from_what_is_tuned(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "ppo.yml"
    path.write_text("HalfCheetah-v5:\n  policy: MlpPolicy\natari:\n  policy: CnnPolicy\n  n_envs: 3\n")
    assert TUNED["HalfCheetah-v5"].settings["network"] is not None
    found = plan.make("HalfCheetah-v5", merge({"config": str(path), "ENV": "HalfCheetah-v5"})).settings
    assert (found.network, found.std_init, found.normalise_observation) == (None, 1.0, False)
    typed = {"config": str(path), "ENV": "HalfCheetah-v5", "recipe": "trpo"}  # replaces the file's algorithm
    found = plan.make("HalfCheetah-v5", merge(typed)).settings
    assert (found.recipe, found.network, found.optim) == (vt.TRPO(), None, vt.Joint())
    assert merge({"config": str(path), "ENV": "PongNoFrameskip-v4"})["n_envs"] == 3
    with pytest.raises(UsageError, match="HalfCheetah-v5, atari: name one"):
        merge({"config": str(path)})


def test_a_file_without_a_network_means_the_one_that_suits_the_observation(tmp_path):
    path, chosen = written(tmp_path, env="HalfCheetah-v5", network=None)
    given = merge({"config": str(path)})
    assert plan.make(given["ENV"], given).settings.network is chosen.settings.network is None


def test_networks_and_arguments_of_the_environment_read_back(tmp_path):
    from vantage.control import LSTM, MLP

    network = LSTM(hidden=32, after=MLP(hidden=(16, 8)), sequence_length=4)
    path, chosen = written(tmp_path, network=network, env_kwargs={"continuous": True, "gravity": -9.5, "mode": "x"})
    given = merge({"config": str(path)})
    assert plan.make(given["ENV"], given).settings == chosen.settings
    typed = merge({"config": str(path), "network": MLP(), "hidden": (4,)})
    assert plan.make(typed["ENV"], typed).settings.network == MLP(hidden=(4,))
    with pytest.raises(UsageError, match="--hidden is a setting of --network mlp: write lstm's own"):
        plan.make("CartPole-v1", {"network": LSTM(), "hidden": (4,)})


def test_arguments_of_the_environment_as_typed():
    assert plan.arguments("continuous=true,gravity=-9.5,n=3,mode=fast") == {
        "continuous": True, "gravity": -9.5, "n": 3, "mode": "fast"
    }  # fmt: skip
    with pytest.raises(UsageError, match="write name=value"):
        plan.arguments("continuous")
