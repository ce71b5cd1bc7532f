"""Every public function of the theory: the same numbers and gradients from NumPy, JAX (also compiled) and PyTorch."""

import functools
import inspect
import pkgutil
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import vantage.theory as theory
from tests.backends._cases import Case, cases
from tests.conftest import BACKENDS, Backend

CASES = cases()
NO_ROW = {
    "loss.Batch",
    "loss.Outputs",
    "loss.Terms",
    "distributions.Product.noise",
    "distributions.SquashedGaussian.entropy",
}
"""Plain records, which each row of `loss` goes through; names of noise; the entropy that raises, tested in `unit`."""


def public_names() -> list[str]:
    """`module.function` and `module.Class.method` of everything public that a theory module defines."""
    names = []
    for info in pkgutil.iter_modules(theory.__path__):
        if info.name.startswith("_"):
            continue
        module = import_module(f"{theory.__name__}.{info.name}")
        for name, x in vars(module).items():
            if name.startswith("_") or getattr(x, "__module__", None) != module.__name__:
                continue
            if inspect.isfunction(x):
                names.append(f"{info.name}.{name}")
            elif inspect.isclass(x) and not getattr(x, "_is_protocol", False):
                methods = [
                    m
                    for m, f in vars(x).items()
                    if not m.startswith("_") and isinstance(f, property | staticmethod) | inspect.isfunction(f)
                ]
                names += [f"{info.name}.{name}.{m}" for m in methods] or [f"{info.name}.{name}"]
    return names


@pytest.mark.parametrize("name", public_names())
def test_every_public_function_has_a_row(name):
    rows = {case.name.split("(")[0] for case in CASES} | NO_ROW
    assert name in rows, f"{name} has no row in tests/backends/_cases.py: add one"


def flat(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, tuple | list) else (x,)


def inputs_of(case: Case, backend: Backend, dtype=np.float64) -> dict[str, Any]:
    """The row's inputs as this library's arrays; Python numbers where the function works on those."""
    cast = {
        k: v.astype(dtype) if isinstance(v, np.ndarray) and v.dtype == np.float64 else v for k, v in case.inputs.items()
    }
    made = {k: backend.asarray(v.copy()) if isinstance(v, np.ndarray) else v for k, v in cast.items()}
    return {k: float(v) if hasattr(v, "shape") else v for k, v in made.items()} if case.host else made


def read(backend: Backend, result: Any) -> list[np.ndarray]:
    return [np.asarray(x) if isinstance(x, float) else backend.to_numpy(x) for x in flat(result)]


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_same_values(case):
    numpy = BACKENDS["numpy"]()
    expected = read(numpy, case.f(**inputs_of(case, numpy)))
    assert expected
    assert all(np.isfinite(x[~np.isneginf(x)]).all() for x in expected), "a row must test finite numbers"
    for name in ("jax", "torch"):
        backend = BACKENDS[name]()
        with backend.context():
            got = read(backend, case.f(**inputs_of(case, backend)))
        assert len(got) == len(expected)
        for e, g in zip(expected, got, strict=True):
            np.testing.assert_allclose(g, e, rtol=1e-12, atol=1e-12, err_msg=name)


def cotangents(outputs: tuple[Any, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=tuple(x.shape)) for x in outputs]


@functools.cache
def compiled(name: str) -> Any:
    """One program for the values and the gradients of a row."""
    import jax

    case = next(case for case in CASES if case.name == name)
    static = {k: v for k, v in case.inputs.items() if not isinstance(v, np.ndarray)}

    def both(moving, arrays):
        outputs, pull = jax.vjp(lambda m: flat(case.f(**m, **arrays, **static)), moving)
        floats = [jax.numpy.issubdtype(x.dtype, jax.numpy.floating) for x in outputs]
        zero = [np.zeros(x.shape, dtype=jax.dtypes.float0) for x in outputs]
        given = [
            w.astype(x.dtype) if f else z for x, w, f, z in zip(outputs, cotangents(outputs), floats, zero, strict=True)
        ]
        return outputs, pull(tuple(given))[0]

    return jax.jit(both)


def jax_gradients(case: Case, inputs: dict[str, Any]) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Values and gradients of one compiled program."""
    arrays = {k: v for k, v in inputs.items() if hasattr(v, "shape")}
    moving = {k: arrays.pop(k) for k in case.floats}
    outputs, gradients = compiled(case.name)(moving, arrays)
    return [np.asarray(x) for x in outputs], {k: np.asarray(v) for k, v in gradients.items()}


def torch_gradients(case: Case, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    import torch

    moving = {k: inputs[k].clone().requires_grad_() for k in case.floats}
    outputs = flat(case.f(**(inputs | moving)))
    terms = [
        (x * torch.as_tensor(w)).sum()
        for x, w in zip(outputs, cotangents(outputs), strict=True)
        if x.is_floating_point() and x.requires_grad
    ]
    if terms:
        torch.stack(terms).sum().backward()
    return {k: np.zeros(v.shape) if v.grad is None else v.grad.numpy() for k, v in moving.items()}


@pytest.mark.parametrize("case", [case for case in CASES if not case.host], ids=repr)
def test_compiled_and_differentiated(case):
    """The compiled program gives NumPy's values; JAX's and PyTorch's gradients agree, −inf entries included."""
    numpy, jax, torch = (BACKENDS[name]() for name in ("numpy", "jax", "torch"))
    expected = read(numpy, case.f(**inputs_of(case, numpy)))
    with jax.context():
        values, slopes = jax_gradients(case, inputs_of(case, jax))
    for e, g in zip(expected, values, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-12, atol=1e-12)
    for name, slope in torch_gradients(case, inputs_of(case, torch)).items():
        assert np.isfinite(slope).all(), name
        np.testing.assert_allclose(slopes[name], slope, rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("case", [case for case in CASES if not case.host], ids=repr)
def test_float32_stays_and_inputs_are_untouched(case, library):
    backend = BACKENDS[library]()
    inputs = inputs_of(case, backend, np.float32)
    before = {k: backend.to_numpy(v).tobytes() for k, v in inputs.items() if hasattr(v, "shape")}
    outputs = read(backend, case.f(**inputs))
    after = {k: backend.to_numpy(v).tobytes() for k, v in inputs.items() if hasattr(v, "shape")}
    assert before == after
    for x in outputs:
        assert x.dtype.kind in "biu" or x.dtype == np.float32, x.dtype


@pytest.mark.parametrize("case", [case for case in CASES if not case.host], ids=repr)
def test_float32_stays_in_jax(case):
    """Even where 64-bit numbers are allowed; JAX's arrays cannot be changed."""
    import jax

    backend = BACKENDS["jax"]()
    with backend.context():
        arrays = {k: v for k, v in inputs_of(case, backend, np.float32).items() if hasattr(v, "shape")}
        static = {k: v for k, v in case.inputs.items() if k not in arrays}
        for x in flat(jax.eval_shape(lambda a: case.f(**a, **static), arrays)):
            assert x.dtype.kind in "biu" or x.dtype == np.float32, x.dtype
