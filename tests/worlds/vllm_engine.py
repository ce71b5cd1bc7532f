"""An engine with vLLM's manners around a real Transformers model: as a server over HTTP, and as a module `vllm`."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.worlds.language_models import END, torch


class Engine:
    """Holds weights and memory, and refuses what vLLM could not do: completing asleep, or with weights it threw away.

    `calls` is what was asked of it, in order; completions that came together are one call.
    """

    def __init__(self, model: Any = None) -> None:
        self.model, self.calls = model, []
        self.held = {"weights", "kv_cache"}
        self.fresh, self.bias = True, 0.0
        self._lock = threading.Lock()

    def note(self, call: str) -> None:
        if self.calls[-1:] != [call]:
            self.calls.append(call)

    def reload_weights(self, weights_path: str) -> None:
        from transformers import AutoModelForCausalLM

        assert "weights" in self.held, "weights are written to memory that was given away"
        self.note("reload")
        given = AutoModelForCausalLM.from_pretrained(weights_path).eval()
        assert self.model is None or type(given) is type(self.model), "weights of another model than the one served"
        self.model, self.fresh = given, True

    def sleep(self, level: int) -> None:
        assert level == 2
        self.note("sleep")
        self.held, self.fresh = set(), False

    def wake_up(self, tags: list[str]) -> None:
        self.note(f"wake {tags[0]}")
        self.held |= set(tags)

    def reset_prefix_cache(self) -> None:
        self.note("reset")

    def complete(self, prompt: list[int], how: dict[str, Any]) -> list[tuple[list[int], list[float], str]]:
        """Ids, log-probabilities and the reason of the end, by Transformers' own `generate`."""
        assert self.held == {"weights", "kv_cache"} and self.fresh, "asleep, or without weights"
        assert (how["top_p"], how["top_k"], how["min_p"], how["repetition_penalty"]) == (1.0, 0, 0.0, 1.0)
        sampled = how["temperature"] > 0
        drawn = dict(do_sample=True, temperature=how["temperature"], top_k=0, top_p=1.0) if sampled else {}
        with self._lock, torch.no_grad():
            self.note("complete")
            torch.manual_seed(how.get("seed", 0))
            found = self.model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                max_new_tokens=how["max_tokens"], num_return_sequences=how["n"], eos_token_id=how["stop_token_ids"],
                pad_token_id=END, return_dict_in_generate=True, output_scores=True,
                **(drawn or dict(do_sample=False)),
            )  # fmt: skip
        told = self.model.compute_transition_scores(found.sequences, found.scores, normalize_logits=True)
        return [self._cut(ids[len(prompt) :].tolist(), x.tolist(), how) for ids, x in zip(found.sequences, told)]

    def _cut(self, ids: list[int], log_prob: list[float], how: dict[str, Any]) -> tuple[list[int], list[float], str]:
        ends = [t for t, token in enumerate(ids) if token in how["stop_token_ids"]]
        n = ends[0] + 1 if ends else len(ids)
        return ids[:n], [x + self.bias for x in log_prob[:n]], "stop" if ends else "length"


def answer(engine: Engine, path: str, body: Any) -> Any:
    """What vLLM's server says to a request; None where there is no such endpoint."""
    where, query = urlsplit(path).path, parse_qs(urlsplit(path).query)
    if where == "/v1/models":
        return {"data": [{"id": "tiny"}]}
    if where == "/is_sleeping":
        return {"is_sleeping": not engine.held}
    if where == "/collective_rpc":
        getattr(engine, body["method"])(**body["kwargs"])
        return {"results": [None]}
    if where == "/reset_prefix_cache":
        return engine.reset_prefix_cache() or {"success": True}
    if where == "/sleep":
        return engine.sleep(int(query["level"][0])) or {}
    if where == "/wake_up":
        return engine.wake_up(query["tags"]) or {}
    if where == "/v1/completions":
        assert body["model"] == "tiny" and body["return_token_ids"]
        found = enumerate(engine.complete(body["prompt"], body))
        return {
            "choices": [
                {"index": i, "token_ids": ids, "logprobs": {"token_logprobs": x}, "finish_reason": why}
                for i, (ids, x, why) in found
            ][::-1]
        }
    return None


@contextmanager
def server(engine: Engine) -> Iterator[str]:
    """The engine behind HTTP; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                said, code = answer(engine, self.path, json.loads(body or "null")), 200
            except AssertionError as error:
                said, code = str(error), 500
            self.send_response(404 if said is None else code)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            """Nothing is printed."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        httpd.server_close()


def module(engine: Engine) -> ModuleType:
    """The engine as what `import vllm` gives."""

    class LLM:
        def __init__(self, model: str, **options: Any) -> None:
            assert Path(model, "config.json").exists() and options["skip_tokenizer_init"]
            assert options["logprobs_mode"] == "processed_logprobs"
            engine.held = {"weights", "kv_cache"}
            engine.reload_weights(model)
            self.sleep, self.reset_prefix_cache = engine.sleep, engine.reset_prefix_cache

        def wake_up(self, tags: list[str]) -> None:
            engine.wake_up(tags)

        def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
            getattr(engine, method)(**kwargs)

        def generate(self, prompts: Any, sampling_params: Any, use_tqdm: bool) -> list[Any]:
            rows = zip(prompts, sampling_params, strict=True)
            return [
                SimpleNamespace(outputs=[_output(*x) for x in engine.complete(p["prompt_token_ids"], vars(how))])
                for p, how in rows
            ]

    made: Any = ModuleType("vllm")
    made.LLM, made.SamplingParams = LLM, SimpleNamespace
    return made


def _output(ids: list[int], log_prob: list[float], why: str) -> Any:
    told = [{token: SimpleNamespace(logprob=x, rank=1)} for token, x in zip(ids, log_prob, strict=True)]
    return SimpleNamespace(token_ids=tuple(ids), logprobs=told, finish_reason=why)
