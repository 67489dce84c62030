"""Our engines against transformers run here and now, on random checkpoints of every storage and many shapes."""

import numpy as np
import pytest

from tests.parity import agreement

torch = pytest.importorskip("torch", reason="the live oracle needs the train extra")
pytest.importorskip("transformers", reason="the live oracle needs the train extra")
pytest.importorskip("accelerate", reason="transformers loads quantised checkpoints only with accelerate")

from tests.parity import oracle  # noqa: E402 (it imports torch at once)

pytestmark = pytest.mark.oracle

GREEDY_STEPS = 24


@pytest.mark.parametrize("backend", agreement.BACKENDS)
@pytest.mark.parametrize("case", oracle.CASES, ids=lambda case: case.name)
def test_logits_and_greedy_text_are_those_of_transformers(tmp_path, case, backend):
    checkpoint = oracle.write_checkpoint(tmp_path / "checkpoint", case)
    model = oracle.load(checkpoint)
    compute = agreement.BACKENDS[backend](agreement.pack(checkpoint, tmp_path / "a.nis"))
    prompt = oracle.prompt(case)
    agreement.assert_agree(compute(prompt), oracle.logits(model, prompt))
    agreement.assert_same_greedy(compute, prompt, oracle.greedy(model, prompt, GREEDY_STEPS))


@pytest.mark.parametrize("backend", agreement.BACKENDS)
def test_a_wrong_scale_direction_or_activation_would_be_seen(tmp_path, backend):
    """The bounds are no sieve: the same numbers under the other linear class are far outside."""
    case = oracle.CASES[3]
    checkpoint = oracle.write_checkpoint(tmp_path / "checkpoint", case)
    model = oracle.load(checkpoint)
    prompt = oracle.prompt(case)
    config = checkpoint / "config.json"
    truth = config.read_text()
    for old, new in (('"bitlinear"', '"autobitlinear"'), ('"relu2"', '"silu"')):
        config.write_text(truth.replace(old, new))
        compute = agreement.BACKENDS[backend](agreement.pack(checkpoint, tmp_path / "a.nis"))
        found = agreement.errors(compute(prompt), oracle.logits(model, prompt))
        assert np.median(found) > agreement.WORST


@pytest.mark.parametrize("case", oracle.RECORDED_CASES, ids=lambda case: case.name)
def test_the_recorded_oracle_is_still_what_transformers_computes(case):
    from tests.parity.test_recorded_oracle import CASES, expected

    folder = next(path for path in CASES if path.name == case.name)
    recorded = expected(folder)
    found = oracle.logits(oracle.load(folder), recorded["prompt"].tolist())
    agreement.assert_agree(found, recorded["logits"])
