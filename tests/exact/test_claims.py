"""Every claim of the theory on every backend, and what a check, a report and the command make of a failure."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from vantage import verify
from vantage.cli import main as vantage_main
from vantage.cli import overview
from vantage.cli.verify import _numbers, _show
from vantage.verify import BACKENDS, BUGS, CLAIMS, Check, Claim
from vantage.verify.claim import at_least, at_most, differs, equal, zero


def main(argv: list[str]) -> int:
    return vantage_main(["verify", *argv])


THEORY = Path(__file__).resolve().parents[2] / "docs" / "theory.md"


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_claim_holds(backend):
    if backend != "numpy":
        pytest.importorskip(backend)
    report = verify.run(backends=[backend])
    assert report.backends == (backend,)
    assert [row.claim.id for row in report.failed] == []
    assert all(row.checks for row in report.rows if row.claim.runs_on(backend))


def test_every_psi_is_there_with_a_right_and_a_wrong_critic():
    for name in (
        "baseline",
        "td-error",
        "k-step-2",
        "gae-0",
        "gae-0.5",
        "gae-0.95",
        "gae-1",
        "lambda-return",
        "vtrace",
    ):
        assert {f"6.1.{name}.true-v", f"6.1.{name}.wrong-v"} <= CLAIMS.keys()
    assert {"6.1.total-return", "6.1.plain-total-return", "6.1.reward-to-go"} <= CLAIMS.keys()
    assert {f"6.1.{q}.{v}" for q in ("action-value", "advantage") for v in ("true-v", "wrong-v")} <= CLAIMS.keys()


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_claim_says_what_it_claims(claim: Claim):
    assert claim.formula
    assert claim.statement.endswith((".", ")"))
    assert claim.id.startswith(claim.section + ".")
    assert len(claim.id) <= 30


def test_sections_are_those_of_the_theory():
    sections = set(re.findall(r"^#+ +(\d+(?:\.\d+)?)", THEORY.read_text(), flags=re.MULTILINE))
    assert {claim.section for claim in CLAIMS.values()} <= sections


def test_only_autodiff_claims_leave_numpy_out():
    assert {c.id for c in CLAIMS.values() if not c.runs_on("numpy")} == {
        "7.2.semi-gradient",
        "8.7.critic-target-frozen",
    }


@pytest.mark.parametrize(
    ("check", "passed", "deviation"),
    [
        (equal([1.0, 2.0], [1.0, 2.0 + 1e-6]), False, 1e-6),
        (equal(1e6, 1e6 + 1e-6), True, 1e-6),
        (equal(np.inf, np.inf), True, 0.0),
        (equal(np.inf, 3.0), False, np.inf),
        (at_most(np.inf, 3.0), True, 0.0),
        (zero([1e-12, -1e-12]), True, 1e-12),
        (differs(1.0, 1.0), False, 0.0),
        (differs([1.0, 1.0], [1.0, 2.0]), True, 1.0),
        (at_least(1.0, [1.0, 3.0]), True, 0.0),
        (at_least(1.0, [0.5, 3.0]), False, 0.5),
        (at_most([1.0, 2.0], [0.0, 2.5]), False, 0.5),
    ],
)
def test_checks(check: Check, passed: bool, deviation: float):
    assert check.passed is passed
    assert check.deviation == pytest.approx(deviation, abs=1e-9, rel=1e-3)


@pytest.mark.parametrize("compare", [equal, differs, at_least, at_most])
def test_nan_never_passes(compare):
    assert not compare(1.0, np.nan).passed
    assert not compare(np.nan, [1.0, 2.0]).passed
    assert not compare([], []).passed


def test_an_error_is_a_failure_with_a_name():
    def check(on):
        raise ZeroDivisionError("no")
        yield

    row = verify.Row.of(Claim(id="1.1.x", formula="", statement="", check=check), {"numpy": BACKENDS["numpy"]()})
    assert not row.ok
    assert row.errors == {"numpy": "ZeroDivisionError: no"}


def test_a_claim_without_checks_does_not_pass():
    row = verify.Row.of(
        Claim(id="1.1.x", formula="", statement="", check=lambda: iter(())), {"numpy": BACKENDS["numpy"]()}
    )
    assert not row.ok


def test_numpy_gradients_are_exact_enough():
    x = np.array([0.3, -1.2])
    got = BACKENDS["numpy"]().gradient(lambda v: np.exp(v[0]) * np.sin(v[1]), x)
    np.testing.assert_allclose(got, [np.exp(0.3) * np.sin(-1.2), np.exp(0.3) * np.cos(-1.2)], atol=1e-11)


def test_command_holds_and_fails_by_its_exit_status(capsys):
    assert main(["--section", "8.3.gae-zero", "--backend", "numpy"]) == 0
    assert "1 of 1 claims hold on numpy" in capsys.readouterr().out
    assert main(["--section", "8.3", "--backend", "numpy", "--mutate", "not-cut"]) == 1
    out = capsys.readouterr().out
    assert "Planted not-cut" in out
    assert "Caught by 8.3.gae, 8.3.gae-recursion." in out
    assert main(["--section", "8.3", "--backend", "numpy"]) == 0


def test_command_as_json(capsys):
    assert main(["--section", "6.6.td-bias", "--backend", "numpy", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["ok"] is True
    assert record["rows"][0]["id"] == "6.6.td-bias"
    assert record["rows"][0]["backends"]["numpy"][0]["passed"] is True


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--section", "9"], "no claim there"),
        (["--section", "8.3.gae-bais"], "did you mean 8.3.gae-bias?"),
        (["--section", "7.2.semi-gradient"], "numpy cannot check it; take jax or torch"),
        (["--mutate", "brax-advantge"], "--mutate brax-advantge: no such bug; did you mean brax-advantage?"),
        (["--mutate", "zzz"], "--mutate zzz: no such bug; `vantage verify --list` lists them"),
        (["--mutate", "elementwise-clip"], "tests/planted"),
        (["--backend", "trch"], "--backend trch: did you mean torch?"),
        (["--sektion", "8"], "did you mean --section?"),
    ],
)
def test_command_explains_bad_options(argv, said, capsys):
    assert main([*argv, "--backend", "numpy"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_command_lists_claims_and_bugs(capsys):
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    assert "8.3.gae-bias" in out
    assert "brax-advantage" in out
    plantable = sum(bug.touches_claims for bug in BUGS.values())
    first, second = out.split(f"{plantable} bugs to plant with --mutate\n")[1].split(
        f"{len(BUGS) - plantable} bugs of the training loop"
    )
    assert "elementwise-clip" not in first
    assert "elementwise-clip" in second


def test_a_named_backend_that_is_not_installed_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(verify, "installed", lambda name: name == "numpy")
    assert main(["--backend", "torch"]) == 2
    assert capsys.readouterr().err == "vantage verify: --backend torch is not installed: pip install torch\n"
    with pytest.raises(ValueError, match="not installed"):
        verify.run(backends=["numpy", "torch"])


def test_a_run_that_compares_nothing_is_not_ok():
    row = verify.Row.of(CLAIMS["6.6.td-bias"], {})
    report = verify.Report(rows=(row,), backends=())
    assert not report.ok
    assert report.failed == ()
    assert row.record()["verdict"] == "skip"
    with pytest.raises(ValueError, match="no backend cannot check it"):
        verify.run("8.3", backends=[])


@pytest.mark.parametrize(
    ("check", "shown"),
    [
        (equal([0.2, -0.2, 0.1], [0.2 - 1e-13, -0.2 - 1e-13, 0.1]), ("0.2 (of 3)", "0.2 (of 3)")),
        (at_most([10.5, 1.0, -7.0], [2.0, 1.0, -70.0]), ("≤ 10.5 (of 3)", "2 (of 3)")),
        (at_most([10.5, 1.0, 2.0], [-99.0, 1.5, 2.0]), ("≤ 1 (of 3)", "1.5 (of 3)")),
        (differs([9.0, 1.0, 2.0], [9.0, 1.0, 5.0]), ("≠ 2 (of 3)", "5 (of 3)")),
    ],
)
def test_the_numbers_shown_are_of_one_entry(check: Check, shown: tuple[str, str]):
    made = Claim(id="1.1.x", formula="", statement="", check=lambda: iter([check]))
    assert _numbers(verify.Row.of(made, {"numpy": BACKENDS["numpy"]()}))[:2] == shown


@pytest.mark.parametrize(("columns", "whole"), [("110", False), ("220", True), ("", True)])
def test_the_formula_gets_the_width_there_is(columns: str, whole: bool, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    name = "8.2.trajectory-weight"
    _show(verify.run(name, backends=["numpy"]))
    assert (CLAIMS[name].formula in capsys.readouterr().out) is whole


def test_the_overview_says_what_verify_does():
    assert re.search(r"^ +verify +Check every formula", overview(), flags=re.MULTILINE)


def test_a_backend_that_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.setattr(verify, "installed", lambda name: name == "numpy")
    assert main(["--section", "8.3.gae-zero"]) == 0
    assert "Not installed, skipped: jax, torch." in capsys.readouterr().out


def test_jax_keeps_what_it_compiled(monkeypatch):
    compile_ = pytest.importorskip("vantage.control._compile")
    calls = []
    monkeypatch.setattr(compile_, "use_cache", lambda: calls.append(1))
    BACKENDS["jax"]()
    assert calls
