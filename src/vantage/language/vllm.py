"""vLLM as the generator: a server or an engine in this process that is given the actor's weights before it completes.

Weights are handed over as files in the form of `save_pretrained`, which vLLM reads by its worker's `reload_weights`: it
needs no GPU on our side, and fits every number of processes on either.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import torch
from jaxtyping import Float

from vantage.language.parallel import Processes
from vantage.language.records import Completions, Prompts, Sampling
from vantage.language.roles import ACTOR
from vantage.language.sharding import whole
from vantage.recipe.schedule import check
from vantage.runs.config import known

Tensor = torch.Tensor
AT_ONCE = 64
"""Requests that wait for a server's answer together."""
START = "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-sleep-mode --logprobs-mode processed_logprobs"
"""How a server is started that can be slept, given weights, and says the log-probabilities that it sampled by."""
OPEN = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Nothing cuts the distribution, whatever a model's own generation config says."""


@known
@dataclass(frozen=True, kw_only=True)
class VLLMServer:
    """A vLLM server completes; it reads the actor's weights from a folder that it shares with the training."""

    url: str = "http://localhost:8000"
    """Where it listens."""
    folder: str | None = None
    """Where weights are handed over, seen by both; None: the machine's folder of temporary files."""
    sleep: bool = True
    """Whether it gives its GPU memory back while the actor learns."""
    timeout: float = 1800.0
    """Seconds that one request may take."""

    def __post_init__(self) -> None:
        check(self.url.startswith(("http://", "https://")), self, "url", "an address such as http://localhost:8000")
        check(self.timeout > 0, self, "timeout", "a number of seconds above 0")


@known
@dataclass(frozen=True, kw_only=True)
class VLLM:
    """A vLLM engine in each training process, on its GPU, completes; it is given the actor's weights."""

    memory: float = 0.3
    """Share of the GPU's memory that it may take while it completes."""
    max_length: int | None = None
    """Longest prompt and completion together, in tokens; None: what the model can."""
    folder: str | None = None
    """Where weights are handed over; None: the machine's folder of temporary files."""
    sleep: bool = True
    """Whether it gives that memory back while the actor learns."""

    def __post_init__(self) -> None:
        check(0.0 < self.memory < 1.0, self, "memory", "a share of the GPU's memory, such as 0.3")


class Said(NamedTuple):
    """One completion: its token ids, their log-probabilities, and whether it came to its own end."""

    ids: list[int]
    log_prob: list[float]
    ended: bool


@runtime_checkable
class Engine(Protocol):
    """What we ask of vLLM, wherever it runs."""

    own: bool
    """Whether each process has one of its own."""
    asleep: bool

    def load(self, folder: Path) -> None:
        """Take the weights in this folder, and forget what was computed by others."""
        ...

    def wake(self, part: str) -> None:
        """Get the memory of `weights` or `kv_cache` again."""
        ...

    def sleep(self) -> None:
        """Give all of it back, weights included: they come anew."""
        ...

    def complete(self, prompts: Sequence[Sequence[int]], options: Sequence[dict[str, Any]]) -> list[list[Said]]:
        """The completions of each prompt under its own options, by vLLM's names."""
        ...


class Server:
    """An engine over HTTP: OpenAI's completions with token ids, and vLLM's development endpoints for all else."""

    own = False

    def __init__(self, chosen: VLLMServer) -> None:
        self._url, self._timeout, self._model = chosen.url.rstrip("/"), chosen.timeout, "?"
        # A server of one's own is not behind the proxy that leads to the world.
        self._open = build_opener(ProxyHandler({})).open
        self._model = self._ask("/v1/models")["data"][0]["id"]
        self.asleep = bool(chosen.sleep and self._ask("/is_sleeping")["is_sleeping"])

    def load(self, folder: Path) -> None:
        """`reload_weights` in every worker, then no prefix is remembered."""
        self._ask("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
        self._ask("/reset_prefix_cache", {})

    def wake(self, part: str) -> None:
        """By its tag."""
        self._ask(f"/wake_up?tags={part}", {})
        self.asleep = False

    def sleep(self) -> None:
        """At level 2."""
        self._ask("/sleep?level=2", {})
        self.asleep = True

    def complete(self, prompts: Sequence[Sequence[int]], options: Sequence[dict[str, Any]]) -> list[list[Said]]:
        """One request a prompt, since each has a seed of its own; the server batches what comes together."""
        with ThreadPoolExecutor(min(AT_ONCE, len(prompts))) as pool:
            return list(pool.map(self._one, prompts, options))

    def _one(self, prompt: Sequence[int], options: dict[str, Any]) -> list[Said]:
        asked = {"model": self._model, "prompt": list(prompt), "return_token_ids": True, "logprobs": 0, **options}
        choices = sorted(self._ask("/v1/completions", asked)["choices"], key=lambda choice: choice["index"])
        return [Said(c["token_ids"], c["logprobs"]["token_logprobs"], c["finish_reason"] == "stop") for c in choices]

    def _ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._url + path, data, {"Content-Type": "application/json"})
        try:
            with self._open(request, timeout=self._timeout) as answer:
                text = answer.read()
        except HTTPError as error:
            says = error.read().decode(errors="replace")[:300]
            raise RuntimeError(
                f"the vLLM server of {self._model} at {self._url} refused {path} ({error.code}: {says}); start it by "
                f"{START} with the actor's own MODEL"
            ) from error
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise ConnectionError(
                f"no vLLM server answers at {self._url}{path} ({reason}): start it by {START}, or leave generator out"
            ) from error
        return json.loads(text) if text.strip() else None


class InProcess:
    """An engine of `vllm.LLM` in this process, built when the first weights are there."""

    own = True

    def __init__(self, chosen: VLLM, processes: Processes) -> None:
        try:
            import vllm  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "generator = VLLM() needs vllm: pip install 'vantage[vllm]', or leave generator out", name="vllm"
            ) from error
        self._vllm: Any = vllm
        self._llm: Any = None
        self._chosen, self._several = chosen, processes.size > 1
        self.asleep = False

    def load(self, folder: Path) -> None:
        """`reload_weights` in every worker; the first time, the engine itself."""
        if self._llm is not None:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
            self._llm.reset_prefix_cache()
            return
        chosen = self._chosen
        # Under torchrun the processes are there already, and vLLM must start none.
        launcher = {"distributed_executor_backend": "external_launcher"} if self._several else {}
        self._llm = self._vllm.LLM(
            model=str(folder), skip_tokenizer_init=True, enable_sleep_mode=chosen.sleep,
            max_model_len=chosen.max_length, gpu_memory_utilization=chosen.memory,
            logprobs_mode="processed_logprobs", **launcher,
        )  # fmt: skip

    def wake(self, part: str) -> None:
        """By its tag."""
        self._llm.wake_up(tags=[part])
        self.asleep = False

    def sleep(self) -> None:
        """At level 2."""
        self._llm.sleep(level=2)
        self.asleep = True

    def complete(self, prompts: Sequence[Sequence[int]], options: Sequence[dict[str, Any]]) -> list[list[Said]]:
        """All prompts in one call."""
        asked = [self._vllm.SamplingParams(logprobs=0, detokenize=False, **each) for each in options]
        rows = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        found = self._llm.generate(rows, sampling_params=asked, use_tqdm=False)
        return [[_said(one) for one in each.outputs] for each in found]


def _said(one: Any) -> Said:
    ids = list(one.token_ids)
    told = [at[token].logprob for at, token in zip(one.logprobs, ids, strict=True)]
    return Said(ids, told, one.finish_reason == "stop")


class Following:
    """A `Generator` whose engine follows the actor: woken, given new weights, asked, and put to sleep again."""

    def __init__(
        self, chosen: VLLM | VLLMServer, sampling: Sampling, actor: Any, stop: tuple[int, ...], pad: int,
        processes: Processes,
    ) -> None:  # fmt: skip
        if not hasattr(_plain(actor), "save_pretrained"):
            raise TypeError(f"generator = {type(chosen).__name__}(): vLLM runs Transformers models; leave it out")
        self._chosen, self._sampling, self._actor = chosen, sampling, actor
        self._stop, self._pad, self._processes = stop, pad, processes
        self._engine: Engine = Server(chosen) if isinstance(chosen, VLLMServer) else InProcess(chosen, processes)
        self._leads = processes.first or self._engine.own
        self._stale = True

    def moved(self) -> None:
        """The engine gets the weights before it completes again."""
        self._stale = True

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Awake, with the actor's weights."""
        self._begin()
        try:
            yield
        finally:
            self._end()

    def complete(
        self, prompts: Prompts, noise: Float[Tensor, "R B"] | None = None, copies: int = 1
    ) -> Completions:  # fmt: skip
        """What the engine writes; each prompt's seed is a number of the noise, so a run can be made again as far as
        vLLM itself can.
        """
        return records(self._engine.complete(prompts.ids, self._options(len(prompts), noise, copies)), self._pad)

    def _options(self, n: int, noise: Tensor | None, copies: int) -> list[dict[str, Any]]:
        width = self._sampling.max_new_tokens if noise is None else len(noise)
        common = {"n": copies, "max_tokens": width, "stop_token_ids": list(self._stop), **OPEN}
        if noise is None:
            return [{**common, "temperature": 0.0}] * n
        seeds = (noise[0, ::copies].double() * 2**31).long().tolist()
        return [{**common, "temperature": self._sampling.temperature, "seed": seed} for seed in seeds]

    def _begin(self) -> None:
        stale = self._stale or self._chosen.sleep
        folder = self._hand_over() if stale else Path()
        if self._leads:
            asleep = self._engine.asleep
            if asleep:
                self._engine.wake("weights")
            if stale:
                self._engine.load(folder)
            if asleep:
                self._engine.wake("kv_cache")
        self._stale = False
        self._processes.gather(None)
        if stale and self._processes.first:
            shutil.rmtree(folder, ignore_errors=True)

    def _end(self) -> None:
        self._processes.gather(None)
        if self._chosen.sleep and self._leads:
            self._engine.sleep()

    def _hand_over(self) -> Path:
        """The weights, written by one process to a folder whose name is new: vLLM may remember a path it has read."""
        weights = plain_weights(self._actor)
        name = tempfile.mkdtemp(prefix="vantage-", dir=self._chosen.folder) if self._processes.first else ""
        folder = Path(self._processes.gather(name)[0])
        if self._processes.first:
            folder.chmod(0o755)  # the server may run as another user
            _plain(self._actor).save_pretrained(folder, state_dict=weights)
        self._processes.gather(None)
        return folder


def records(said: list[list[Said]], pad: int) -> Completions:
    """Completions as tensors, right-padded, those of a prompt side by side."""
    rows = [one for each in said for one in each]
    width = max(1, max(len(row.ids) for row in rows))
    lengths = torch.tensor([len(row.ids) for row in rows])
    return Completions(
        ids=torch.tensor([[*row.ids, *[pad] * (width - len(row.ids))] for row in rows]),
        mask=torch.arange(width)[None] < lengths[:, None],
        ended=torch.tensor([row.ended for row in rows]),
        log_prob=torch.tensor([[*row.log_prob, *[0.0] * (width - len(row.ids))] for row in rows], dtype=torch.float32),
    )


def plain_weights(model: Any) -> dict[str, Tensor]:
    """The whole weights under the names of the plain model, the actor's adapter added in: W + (α/r) B A.

    The model is left as it is, bit for bit. All processes must ask. Raises ValueError for adapters on embeddings.
    """
    base = _plain(model)
    state = {name: whole(x).detach() for name, x in base.state_dict(keep_vars=True).items()}
    if any(".lora_embedding_" in name for name in state):
        raise ValueError("LoRA.targets has an embedding, whose adapter vLLM cannot be given: name linear layers only")
    plain: dict[str, Tensor] = {}
    for name, x in state.items():
        layer, inner, leaf = name.rpartition(".base_layer.")
        if ".lora_" in name:
            continue
        down, up = (state.get(f"{layer}.lora_{part}.{ACTOR}.weight") for part in "AB")
        if inner and leaf == "weight" and down is not None and up is not None:
            module = base.get_submodule(layer)
            delta = module.scaling[ACTOR] * (up @ down)
            x = x + (delta.T if module.fan_in_fan_out else delta).to(x.dtype)
        plain[f"{layer}.{leaf}" if inner else name] = x
    return plain


def _plain(model: Any) -> Any:
    """The model without adapters around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
