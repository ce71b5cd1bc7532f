"""An agent's deterministic policy as an ONNX graph, which other languages and machines can run without this library."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from vantage.control.agent import Agent
from vantage.control.networks import Tower
from vantage.control.normalise import CLIP, Moments
from vantage.control.spaces import BoxActions, DiscreteActions, StateObservations, VectorObservations

Array = Any
OPSET, IR = 17, 8
"""Old enough for what runs in the field."""
TOLERANCE = 1e-5
"""How far the graph's numbers may lie from the agent's, relative to their size where that is above 1."""
ROWS = 512
"""Observations on which both are compared."""


class _Graph:
    """Nodes and constants, collected in order; `add` returns the name of what a node gives."""

    def __init__(self, onnx: Any) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._onnx = onnx

    def constant(self, value: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(self._onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *inputs: Any, name: str = "", **attributes: Any) -> str:
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        name = name or f"h{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, names, [name], **attributes))
        return name


def export_onnx(agent: Agent, path: str | Path) -> float:
    """Write the graph, run it by onnxruntime on 512 observations, and return its largest deviation from the agent.

    Input `observation`, as the environment gives it, `[N, D]` float32 or `[N]` int64 for numbered states; outputs
    `action`, as the environment accepts it, and `policy`, the logits or the mean. Inside are normalisation with the
    statistics of this moment, the perceptron, and argmax, or clipping to the box, or tanh stretched over it.
    Raises ValueError for an agent whose network is not a perceptron, ModuleNotFoundError with the remedy without onnx,
    and ArithmeticError, leaving no file, if the deviation exceeds 1e-5.
    """
    onnx, runtime = _package("onnx"), _package("onnxruntime")
    path = Path(path)
    model = build(agent, onnx)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    worst = deviation(agent, lambda seen: session.run(["action", "policy"], {"observation": seen}))
    if not worst <= TOLERANCE:
        raise ArithmeticError(f"the graph deviates from the agent by {worst:.2g}, more than {TOLERANCE:g}: not written")
    onnx.save(model, str(path))
    return worst


def build(agent: Agent, onnx: Any) -> Any:
    """The graph as an ONNX model. Raises ValueError for what has no graph here."""
    model, moments = agent._model, agent._player.moments
    networks = model.networks(agent._vector)
    towers = [networks.actor] if networks.trunk is None else [networks.trunk, networks.actor]
    for tower in towers:
        if not isinstance(tower, Tower):
            raise ValueError(f"the network is a {type(tower).__name__}: only the perceptron MLP is exported to ONNX")
    graph, helper, types, space = _Graph(onnx), onnx.helper, onnx.TensorProto, _space(agent)
    if not isinstance(model.actions, DiscreteActions | BoxActions):
        raise ValueError(f"actions are {type(model.actions).__name__}: only Discrete and Box are exported to ONNX")
    x = _states(graph, space, moments) if isinstance(space, StateObservations) else _vectors(graph, moments)
    for tower in towers:
        x = _perceptron(graph, tower, x)
    _act(graph, model.actions, x)
    discrete = isinstance(model.actions, DiscreteActions)
    states = isinstance(space, StateObservations)
    seen = ("observation", types.INT64, ["N"]) if states else ("observation", types.FLOAT, ["N", space.size])
    done = ("action", types.INT64, ["N"]) if discrete else ("action", types.FLOAT, ["N", model.actions.outputs])
    raw = ("policy", types.FLOAT, ["N", model.actions.outputs])
    whole = helper.make_graph(
        graph.nodes, "vantage-policy", [helper.make_tensor_value_info(*seen)],
        [helper.make_tensor_value_info(*done), helper.make_tensor_value_info(*raw)], graph.constants,
    )  # fmt: skip
    made = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="vantage")
    made.ir_version = IR
    onnx.checker.check_model(made, full_check=True)
    return made


def _vectors(graph: _Graph, moments: Moments | None) -> str:
    """clip((x − mean)/std, ±10), or x."""
    if moments is None:
        return "observation"
    centred = graph.add("Sub", "observation", moments.mean.astype(np.float32))
    scaled = graph.add("Mul", centred, moments.scale.astype(np.float32))
    return graph.add("Clip", scaled, np.float32(-CLIP), np.float32(CLIP))


def _states(graph: _Graph, observations: StateObservations, moments: Moments | None) -> str:
    """One-hot of the state, counted from 0."""
    if moments is not None:
        raise ValueError("normalise_observation = True has no meaning for numbered states: train without it")
    number = graph.add("Sub", "observation", np.int64(observations.start))
    return graph.add("OneHot", number, np.int64(observations.size), np.array([0.0, 1.0], np.float32))


def _perceptron(graph: _Graph, tower: Tower, x: str) -> str:
    """h ← f(hW + b); a last layer that is linear is the output `policy`."""
    layers = [(np.asarray(w, np.float32), np.asarray(b, np.float32)) for w, b in tower.layers]
    for weight, bias in layers[:-1] if tower.linear_end else layers:
        x = graph.add("Gemm", x, weight, bias)
        if tower.activation == "silu":
            x = graph.add("Mul", x, graph.add("Sigmoid", x))
        else:
            x = graph.add({"tanh": "Tanh", "relu": "Relu"}[tower.activation], x)
    return graph.add("Gemm", x, *layers[-1], name="policy") if tower.linear_end else x


def _act(graph: _Graph, actions: Any, x: str) -> None:
    """The most probable action, as the environment accepts it."""
    if isinstance(actions, DiscreteActions):
        graph.add("Add", graph.add("ArgMax", x, axis=1, keepdims=0), np.int64(actions.start), name="action")
        return
    low, high = np.asarray(actions.low, np.float32), np.asarray(actions.high, np.float32)
    if actions.squash:
        share = graph.add("Add", graph.add("Tanh", x), np.float32(1.0))
        graph.add("Add", low, graph.add("Mul", share, np.float32(0.5) * (high - low)), name="action")
    else:
        graph.add("Min", graph.add("Max", x, low), high, name="action")


def deviation(agent: Agent, run: Any) -> float:
    """max |graph − agent| / max(1, |agent|) over actions and policy outputs; `run` maps observations to both.

    An argmax may differ where the two best logits are closer than the tolerance.
    """
    seen = _observations(agent)
    action, policy = (np.asarray(x) for x in run(seen))
    wanted = agent._player.outputs(agent._model.observations.record(seen))
    worst = _relative(policy, wanted)
    meant = np.asarray(agent.act(seen, deterministic=True))
    if isinstance(agent._model.actions, BoxActions):
        return max(worst, _relative(action, meant))
    best = np.sort(wanted, axis=-1)
    clear = np.ones(len(seen), bool) if best.shape[-1] < 2 else best[:, -1] - best[:, -2] > TOLERANCE
    return np.inf if (action != meant)[clear].any() else worst


def _relative(found: Array, wanted: Array) -> float:
    return float(np.max(np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted))))


def _space(agent: Agent) -> VectorObservations | StateObservations:
    space = agent._model.observations
    if not isinstance(space, VectorObservations | StateObservations):
        raise ValueError(
            f"observations are {type(space).__name__}: only flat vectors and numbered states are exported to ONNX; "
            "wrap the environment in gymnasium.wrappers.FlattenObservation"
        )
    return space


def _observations(agent: Agent) -> Array:
    """Every state, or vectors around what the agent has seen, some far out."""
    space, moments = _space(agent), agent._player.moments
    if isinstance(space, StateObservations):
        return np.arange(space.start, space.start + space.size, dtype=np.int64)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, space.size)) * rng.choice([0.1, 1.0, 10.0], (ROWS, 1))
    return (x if moments is None else moments.mean + x / moments.scale).astype(np.float32)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"exporting needs {name}: pip install 'vantage[onnx]'") from error
