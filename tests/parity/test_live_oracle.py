"""Our engines against transformers run here and now, on random checkpoints of every storage and many shapes."""

import numpy as np
import pytest

from tests.parity import agreement, cases

pytestmark = pytest.mark.oracle

GREEDY_STEPS = 24

CLOSE_CALLS_MAX = 4
"""Of 256 steps: where the two best candidates are closer than one rounding of an activation can move them."""


@pytest.fixture(scope="module")
def oracle():
    """tests.parity.oracle, imported only when one of these tests runs: torch takes seconds."""
    for module in ("torch", "transformers", "accelerate"):
        pytest.importorskip(module, reason=f"{module} is missing: the live oracle needs the train extra")
    from tests.parity import oracle

    return oracle


@pytest.fixture(scope="module", params=cases.CASES, ids=lambda case: case.name)
def truth(oracle, request, tmp_path_factory):
    """A checkpoint folder, a prompt, and what transformers makes of it: logits and greedy text."""
    folder = oracle.write_checkpoint(tmp_path_factory.mktemp("oracle") / "checkpoint", request.param)
    model = oracle.load(folder)
    prompt = cases.prompt(request.param)
    return folder, prompt, oracle.logits(model, prompt), oracle.greedy(model, prompt, GREEDY_STEPS)


@pytest.mark.parametrize("backend", agreement.BACKENDS)
def test_logits_and_greedy_text_are_those_of_transformers(truth, tmp_path, backend):
    checkpoint, prompt, logits, greedy = truth
    compute = agreement.BACKENDS[backend](agreement.pack(checkpoint, tmp_path / "a.nis"))
    agreement.assert_agree(compute(prompt), logits)
    agreement.assert_same_greedy(compute, prompt, greedy)


@pytest.mark.parametrize("case", cases.LONG_CASES, ids=lambda case: case.name)
def test_256_greedy_steps_are_those_of_transformers(oracle, case, tmp_path):
    """Every step is compared, also behind one where two candidates were closer than a rounding: our logits follow the
    oracle's text, and the engine's own greedy loop must then say the same."""
    from nis_edge.engine.model import Model

    folder = oracle.write_checkpoint(tmp_path / "checkpoint", case)
    prompt = cases.prompt(case, 8 if case.seed % 4 else 600)
    expected = oracle.greedy_cached(oracle.load(folder), prompt, 256)
    path = agreement.pack(folder, tmp_path / "a.nis")
    logits = agreement.native(path)(prompt + expected[:-1])[len(prompt) - 1 :]
    chosen = logits.argmax(axis=1)
    assert len(chosen) == 256
    different = np.flatnonzero(chosen != expected)
    gaps = [(logits[step].max() - logits[step][expected[step]]) / logits[step].std() for step in different]
    assert all(gap < agreement.WORST for gap in gaps), dict(zip(different.tolist(), gaps, strict=True))
    assert len(different) <= CLOSE_CALLS_MAX, different
    with Model.open(path) as model:
        session = model.session()
        session.forward(prompt[:-1])
        ours = session.greedy(prompt[-1], 256)
    first = int(different[0]) if len(different) else 256
    assert list(ours)[:first] == expected[:first]


@pytest.mark.parametrize("backend", agreement.BACKENDS)
def test_a_wrong_scale_direction_or_activation_would_be_seen(oracle, tmp_path, backend):
    """The bounds are no sieve: the same numbers under the other linear class are far outside."""
    case = cases.CASES[3]
    checkpoint = oracle.write_checkpoint(tmp_path / "checkpoint", case)
    model = oracle.load(checkpoint)
    prompt = cases.prompt(case)
    config = checkpoint / "config.json"
    truth = config.read_text()
    for old, new in (('"bitlinear"', '"autobitlinear"'), ('"relu2"', '"silu"')):
        config.write_text(truth.replace(old, new))
        compute = agreement.BACKENDS[backend](agreement.pack(checkpoint, tmp_path / "a.nis"))
        found = agreement.errors(compute(prompt), oracle.logits(model, prompt))
        assert np.median(found) > agreement.WORST


@pytest.mark.parametrize("case", cases.RECORDED_CASES, ids=lambda case: case.name)
def test_the_recorded_oracle_is_still_what_transformers_computes(oracle, case):
    from tests.parity.test_recorded_oracle import CASES, expected

    folder = next(path for path in CASES if path.name == case.name)
    recorded = expected(folder)
    found = oracle.logits(oracle.load(folder), recorded["prompt"].tolist())
    agreement.assert_agree(found, recorded["logits"])
