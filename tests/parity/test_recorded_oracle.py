"""Our engines against what transformers computed when tests/parity/record_oracle.py was run. Needs no torch."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from tests.parity import agreement

CASES = sorted(path.parent for path in (Path(__file__).parent / "recorded").glob("*/expected.safetensors"))


def expected(folder: Path) -> dict[str, np.ndarray]:
    with safe_open(folder / "expected.safetensors", framework="numpy") as file:
        return {name: file.get_tensor(name) for name in ("prompt", "logits", "greedy")}


def test_every_storage_was_recorded_in_small_files():
    storages = {case.name.partition("-h")[0] for case in CASES}
    bitnet = {"master-f32", "master-bf16", "bitlinear", "autobitlinear-packed", "autobitlinear-real"}
    assert storages == bitnet | {"llama-bitlinear", "llama-master-bf16"}
    assert sum(path.stat().st_size for case in CASES for path in case.iterdir()) < 350_000


@pytest.mark.parametrize("backend", agreement.BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_logits_and_greedy_text_are_those_of_transformers(tmp_path, case, backend):
    compute = agreement.BACKENDS[backend](agreement.pack(case, tmp_path / "a.nis"))
    recorded = expected(case)
    prompt = recorded["prompt"].tolist()
    agreement.assert_agree(compute(prompt), recorded["logits"])
    agreement.assert_same_greedy(compute, prompt, recorded["greedy"].tolist())


@pytest.mark.parametrize("backend", agreement.BACKENDS)
def test_the_typical_position_agrees_to_the_last_bits(tmp_path, backend):
    found = []
    for case in CASES:
        compute = agreement.BACKENDS[backend](agreement.pack(case, tmp_path / "a.nis"))
        recorded = expected(case)
        found.append(agreement.errors(compute(recorded["prompt"].tolist()), recorded["logits"]))
    assert np.median(np.concatenate(found)) < agreement.TYPICAL
