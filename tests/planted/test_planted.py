"""Each known bug, planted alone, makes its guards fail; without one they pass."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from tests.planted import test_control_guards
from vantage import verify
from vantage.verify import BUGS, CLAIMS, Bug

IN_CLAIMS = {name: bug for name, bug in BUGS.items() if bug.touches_claims}
IN_CONTROL = {name: bug for name, bug in BUGS.items() if not bug.touches_claims}


def backend_for(claim: str) -> str:
    if CLAIMS[claim].runs_on("numpy"):
        return "numpy"
    pytest.importorskip("torch")
    return "torch"


@pytest.mark.parametrize("bug", IN_CLAIMS.values(), ids=IN_CLAIMS)
def test_each_guard_catches_the_bug_and_holds_without_it(bug: Bug):
    assert bug.guards
    for guard in bug.guards:
        backend = [backend_for(guard)]
        assert verify.run(guard, backends=backend).ok
        assert not verify.run(guard, mutate=bug.name, backends=backend).ok


@pytest.mark.parametrize("bug", IN_CONTROL.values(), ids=IN_CONTROL)
def test_the_training_loop_has_guards(bug: Bug):
    for name in bug.guards:
        guard = getattr(test_control_guards, name)
        guard()
        with bug.planted(), pytest.raises(AssertionError):
            guard()


def test_only_a_wrong_critic_unmasks_the_impostor():
    """Brax's formula has the right conditional mean and gradient with V_π: the claim that V_π gives cannot tell."""
    assert verify.run("8.3.gae-unbiased", mutate="brax-advantage", backends=["numpy"]).ok
    assert not verify.run("8.3.gae-bias", mutate="brax-advantage", backends=["numpy"]).ok
    true, wrong = (
        {c.what: c.passed for c in row.checks["numpy"]}
        for v in ("true-v", "wrong-v")
        for row in verify.run(f"6.1.gae-0.5.{v}", mutate="brax-advantage", backends=["numpy"]).rows
    )
    assert true == {"max |bias|, variance": False, "E[ĝ]": True, "E[ĝ] = ∇J": True}
    assert not wrong["E[ĝ]"]


@pytest.mark.parametrize("bug", IN_CLAIMS.values(), ids=IN_CLAIMS)
def test_a_bug_is_gone_afterwards(bug: Bug):
    module, path = bug.target.split(":")
    owner = import_module(module)
    for name in path.split("."):
        before, owner = owner, getattr(owner, name)
    with bug.planted():
        assert getattr(before, name) is not owner
    assert getattr(before, name) is owner


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_a_bug_has_a_story(bug: Bug):
    assert bug.story.endswith(".")
    assert bug.seen_in
    assert set(bug.guards) <= CLAIMS.keys() or all(hasattr(test_control_guards, guard) for guard in bug.guards)


def test_the_page_lists_every_bug():
    page = (Path(__file__).resolve().parents[2] / "docs" / "verify.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([\w-]+)` \|", page, flags=re.MULTILINE) == list(BUGS)
