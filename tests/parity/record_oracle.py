"""Record what transformers computes, for machines without it: `.venv/bin/python -m tests.parity.record_oracle`.

Writes tests/parity/recorded/CASE/: the checkpoint as transformers saved it (config.json, model.safetensors), and
expected.safetensors with the prompt, float32 logits [prompt, vocab], and the greedy continuation. Run it again only
when a case is added or transformers changes what it computes; the versions stand in expected.safetensors' metadata.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

from tests.parity import cases, oracle

FOLDER = Path(__file__).parent / "recorded"
PROMPT_TOKENS = 16
GREEDY_STEPS = 16


def main() -> None:
    """Record afresh the cases named on the command line, or every one."""
    names = sys.argv[1:] or [case.name for case in cases.RECORDED_CASES]
    for case in (case for case in cases.RECORDED_CASES if case.name in names):
        shutil.rmtree(FOLDER / case.name, ignore_errors=True)
        folder = oracle.write_checkpoint(FOLDER / case.name, case)
        (folder / "generation_config.json").unlink(missing_ok=True)
        model = oracle.load(folder)
        prompt = cases.prompt(case, PROMPT_TOKENS)
        expected = {
            "prompt": np.array(prompt, dtype=np.int64),
            "logits": oracle.logits(model, prompt),
            "greedy": np.array(oracle.greedy(model, prompt, GREEDY_STEPS), dtype=np.int64),
        }
        versions = {"transformers": transformers.__version__, "torch": torch.__version__}
        save_file(expected, folder / "expected.safetensors", metadata=versions)
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    print(f"{len(cases.RECORDED_CASES)} cases, {size:,} bytes in {FOLDER}")


if __name__ == "__main__":
    main()
