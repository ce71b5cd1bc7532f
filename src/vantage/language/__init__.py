"""The language world: RLHF on Hugging Face causal language models."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vantage.language.callbacks import Evaluate, Samples
    from vantage.language.experience import Replace, Shaping, Subtract
    from vantage.language.records import Completions, Experience, Prompts, Sampling, Sequences
    from vantage.language.rlhf import RLHF, Evaluation
    from vantage.language.roles import Critic, FromActor, FromReward, LoRA, OnActor, Roles
    from vantage.language.settings import Settings
    from vantage.language.training import LanguageWorld, Sample
    from vantage.language.vllm import VLLM, VLLMServer

_HOMES = {
    "callbacks": ("Evaluate", "Samples"),
    "experience": ("Replace", "Shaping", "Subtract"),
    "records": ("Completions", "Experience", "Prompts", "Sampling", "Sequences"),
    "rlhf": ("RLHF", "Evaluation"),
    "roles": ("Critic", "FromActor", "FromReward", "LoRA", "OnActor", "Roles"),
    "settings": ("Settings",),
    "training": ("LanguageWorld", "Sample"),
    "vllm": ("VLLM", "VLLMServer"),
}
_MODULE = {name: module for module, names in _HOMES.items() for name in names}
"""Where each name lives; its module, and with it PyTorch, is imported when the name is first asked for."""


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'vantage.language' has no attribute {name!r}")
    for needed in ("torch", "transformers"):
        if find_spec(needed) is None:
            raise ModuleNotFoundError(f"vt.{name} needs {needed}: pip install 'vantage[language]'", name=needed)
    return globals().setdefault(name, getattr(import_module(f"vantage.language.{_MODULE[name]}"), name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE})


__all__ = [
    "RLHF",
    "VLLM",
    "Completions",
    "Critic",
    "Evaluate",
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
    "Samples",
    "Sampling",
    "Sequences",
    "Settings",
    "Shaping",
    "Subtract",
    "VLLMServer",
]
