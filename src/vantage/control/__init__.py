"""Training agents in Gymnasium environments, on JAX."""

from vantage.control._compile import use_cache

use_cache()

from vantage.control.agent import Agent, Evaluation, load  # noqa: E402
from vantage.control.atari import Atari  # noqa: E402
from vantage.control.convolution import NatureCNN, SmallCNN  # noqa: E402
from vantage.control.networks import MLP  # noqa: E402
from vantage.control.recurrent import GRU, LSTM  # noqa: E402
from vantage.control.settings import Settings  # noqa: E402

__all__ = ["GRU", "LSTM", "MLP", "Agent", "Atari", "Evaluation", "NatureCNN", "Settings", "SmallCNN", "load"]
