"""The language world: RLHF on Hugging Face causal language models."""

from vantage.language.experience import Replace, Shaping, Subtract
from vantage.language.records import Completions, Experience, Prompts, Sampling, Sequences
from vantage.language.rlhf import RLHF, Evaluation
from vantage.language.roles import Critic, FromActor, FromReward, LoRA, OnActor, Roles
from vantage.language.settings import Settings
from vantage.language.training import LanguageWorld, Sample

__all__ = [
    "RLHF",
    "Completions",
    "Critic",
    "Evaluation",
    "Experience",
    "FromActor",
    "FromReward",
    "LanguageWorld",
    "LoRA",
    "OnActor",
    "Prompts",
    "Replace",
    "Roles",
    "Sample",
    "Sampling",
    "Sequences",
    "Settings",
    "Shaping",
    "Subtract",
]
