"""What stands under the mask, NaN and infinity included, changes no value and no gradient of any function."""

import inspect

import numpy as np
import pytest

from tests.backends._cases import RECIPES, Case, call_loss, loss_inputs
from tests.backends.test_theory import CASES, inputs_of, jax_gradients, public_names, read, torch_gradients
from tests.conftest import BACKENDS
from vantage import theory

MASKED = [case for case in CASES if "mask" in case.inputs or "b_mask" in case.inputs]


def takes_mask(name: str) -> bool:
    module, function = name.split(".")[:2]
    return "mask" in inspect.signature(getattr(getattr(theory, module), function)).parameters


def test_every_function_with_a_mask_is_here():
    modules = [name for name in public_names() if name.count(".") == 1 and not name.startswith("loss.")]
    rows = {case.name.split("(")[0] for case in MASKED}
    assert {name for name in modules if takes_mask(name)} | {"loss.loss"} == rows


def spoiled(case: Case, garbage: float) -> Case:
    """The same row with garbage in each masked cell of each input: floats replaced, flags inverted, counts absurd."""
    mask = case.inputs["mask" if "mask" in case.inputs else "b_mask"]
    new = dict(case.inputs)
    for name, x in case.inputs.items():
        if not isinstance(x, np.ndarray) or x.shape != mask.shape or name.endswith("mask"):
            continue
        bad = garbage if x.dtype.kind == "f" else np.logical_not(x) if x.dtype.kind == "b" else 7
        new[name] = np.where(mask, x, bad).astype(x.dtype)
    return Case(case.name, case.f, new)


@pytest.mark.parametrize("garbage", [np.nan, np.inf])
@pytest.mark.parametrize("case", MASKED, ids=repr)
def test_values(case, garbage):
    numpy = BACKENDS["numpy"]()
    clean = read(numpy, case.f(**inputs_of(case, numpy)))
    with np.errstate(invalid="ignore", over="ignore"):
        dirty = read(numpy, case.f(**inputs_of(spoiled(case, garbage), numpy)))
    for c, d in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(d, c)


@pytest.mark.parametrize("case", MASKED, ids=repr)
def test_values_and_gradients_jax(case):
    jax = BACKENDS["jax"]()
    with jax.context():
        clean, slopes = jax_gradients(case, inputs_of(case, jax))
        dirty, found = jax_gradients(case, inputs_of(spoiled(case, np.nan), jax))
    for c, d in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(d, c)
    for name, slope in slopes.items():
        np.testing.assert_array_equal(found[name], slope, err_msg=name)


@pytest.mark.parametrize("garbage", [np.nan, np.inf])
@pytest.mark.parametrize("case", MASKED, ids=repr)
def test_gradients_torch(case, garbage):
    torch = BACKENDS["torch"]()
    clean = torch_gradients(case, inputs_of(case, torch))
    for name, slope in torch_gradients(spoiled(case, garbage), inputs_of(spoiled(case, garbage), torch)).items():
        np.testing.assert_array_equal(slope, clean[name], err_msg=name)


def test_masked_cells_come_out_as_zero():
    numpy = BACKENDS["numpy"]()
    for case in MASKED:
        for x in read(numpy, case.f(**inputs_of(case, numpy))):
            mask = case.inputs.get("mask")
            if mask is not None and x.shape == mask.shape:
                assert (x[~mask] == 0.0).all(), case


@pytest.mark.parametrize("name", RECIPES)
def test_each_field_of_the_loss_alone(name, rng):
    """NaN in the masked cells of one field at a time, the weight too: no field is forgotten."""
    inputs = loss_inputs(rng)
    mask = inputs["b_mask"]
    value, metrics = call_loss(RECIPES[name], inputs)
    assert np.isfinite(value)
    for field, x in inputs.items():
        if field == "b_mask":
            continue
        again, other = call_loss(RECIPES[name], inputs | {field: np.where(mask, x, np.nan)})
        assert again == value, field
        assert {k: float(v) for k, v in other.items()} == {k: float(v) for k, v in metrics.items()}, field


def test_rows_under_the_mask_do_not_count(rng):
    """The loss of a batch with masked rows is the loss of the real rows alone."""
    inputs = loss_inputs(rng)
    kept = {k: v[inputs["b_mask"]] for k, v in inputs.items()}
    for name, recipe in RECIPES.items():
        np.testing.assert_allclose(call_loss(recipe, kept)[0], call_loss(recipe, inputs)[0], rtol=1e-12, err_msg=name)
