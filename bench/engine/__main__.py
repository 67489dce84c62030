"""Our engine beside its peers, same shapes, same run, interleaved: the table of targets, and a result file.

    python -m bench.engine --peer-python PEERS_VENV/bin/python
    python -m bench.engine --peer-python PEERS_VENV/bin/python --shape nis-base --rounds 3

Each contestant sits in its own process with its model loaded; rounds go through all of them in turn, so that the noise
of the machine falls on all alike. A figure is the median over rounds with its range; only the ratios mean anything
on another day. The peers' environment needs `pip install llama-cpp-python gguf`, and `pip install torch transformers`
for transformers to take part; it may be this one. ONNX Runtime takes part on nis-base where `pip install -e '.[onnx]'`
was done. The random models are written once, which takes some minutes and 4.7 GB; a run takes about six.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.engine.shapes import SHAPES, Shape
from bench.engine.targets import OURS, target_table, targets

PREFILL_TOKENS = 128
DECODE_AFTER = 16
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Entry:
    """One contestant: how it is named in the table, what it runs, and its process."""

    name: str
    kind: str
    path: Path
    python: str
    process: subprocess.Popen[str] | None = None
    ready: dict[str, Any] = field(default_factory=dict)

    def start(self, threads: int, shape: Shape) -> None:
        """Start the process and wait until the model is loaded."""
        command = [self.python, "-m", "bench.engine.worker", self.kind, str(self.path), "--threads", str(threads)]
        self.process = subprocess.Popen(
            [*command, "--vocab", str(shape.vocab)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        answer = self.read()
        if "error" in answer:
            raise SystemExit(f"{self.name}: {answer['error']}; not measured")
        self.ready = answer["ready"]

    def ask(self, **order: object) -> dict[str, Any]:
        """Send one order and return the answer."""
        assert self.process and self.process.stdin
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        result = self.read()
        if "error" in result:
            raise SystemExit(f"{self.name}: {result['error']}; not measured")
        return result

    def read(self) -> dict[str, Any]:
        assert self.process and self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the process ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        if self.process and self.process.stdin:
            self.process.stdin.close()
            self.process.wait(timeout=30)
            self.process = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=sorted(SHAPES), default=sorted(SHAPES))
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has llama-cpp-python and gguf")
    parser.add_argument("--files", type=Path, default=ROOT / ".cache" / "bench", help="where random models are written")
    parser.add_argument("--json", type=Path, help="result file; default bench/results/<machine>.engine.json")
    args = parser.parse_args()
    args.files.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    extras: dict[str, Any] = {"gemv": measure_gemv(args.rounds)}
    for name in args.shape:
        shape = SHAPES[name]
        entries = prepare(shape, args.files, args.peer_python)
        if name == "2b4t":
            extras["loads"] = measure_loads(shape, entries, max(args.threads))
        for threads in args.threads:
            results.extend(measure(shape, entries, threads, args.rounds, extras))
    lines = targets(results, extras)
    output = args.json or ROOT / "bench" / "results" / f"{machine_name()}.engine.json"
    document = {
        "about": about(args.peer_python),
        "targets": [asdict(line) for line in lines],
        "extras": extras,
        "results": results,
    }
    output.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\n{table(results)}\n\n{target_table(lines)}")
    print(f"\nwritten to {output}")


def prepare(shape: Shape, files: Path, peer_python: str) -> list[Entry]:
    """Write the random models that are not there yet; return the contestants, ours first."""
    package = files / f"{shape.name}.screen.nis"
    if not package.exists():
        run_writer(sys.executable, "from bench.engine.random_package import write_random_package as w", package, shape)
    entries = [Entry(OURS, "nis-edge", package, sys.executable)]
    for weights, head in (("tq2_0", "f16"), ("tq2_0", "q6_k"), ("tq1_0", "f16")):
        path = files / f"{shape.name}.{weights}.{head}.gguf"
        if not path.exists():
            writer = "from bench.engine.random_gguf import write_random_gguf as w"
            run_writer(peer_python, writer, path, shape, weights=weights, head=head)
        entries.append(Entry(f"llama.cpp {weights.upper()}, {head} head", "llama.cpp", path, peer_python))
    if shape.name != "nis-base":
        print("NOT RUN: transformers: of 2b4t it makes a token in a second or two, after minutes of drawing weights")
    elif subprocess.run([peer_python, "-c", "import torch, transformers"], capture_output=True, check=False).returncode:
        print("NOT RUN: transformers: pip install torch transformers in the peers' environment")
    else:
        # It reads no file: the weights are drawn in its process. Dense bfloat16 is what it runs fastest.
        entries.append(Entry("transformers, dense bfloat16", "transformers", Path(shape.name), peer_python))
    if shape.name == "nis-base":
        if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
            entries.append(Entry("ONNX Runtime, int8 weights, f16 head", "onnx", package, sys.executable))
        else:
            print("NOT RUN: ONNX Runtime: pip install -e '.[onnx]'")
    return entries


def run_writer(python: str, statement: str, path: Path, shape: Shape, **options: str) -> None:
    """Write one model in a process of its own: it takes gigabytes that should not stay with this one."""
    print(f"writing {path.name} ...", flush=True)
    extra = "".join(f", {name}={value!r}" for name, value in options.items())
    imports = f"from pathlib import Path; from bench.engine.shapes import SHAPES; {statement}"
    code = f"{imports}; w(Path({str(path)!r}), SHAPES[{shape.name!r}]{extra})"
    subprocess.run([python, "-c", code], check=True, cwd=ROOT)


def measure_gemv(rounds: int) -> dict[str, float]:
    """GB/s of one thread: the best ternary kernel over matrices that no cache holds, and a plain read."""
    from bench.kernels.__main__ import gemv_from_dram, plain_read

    samples: dict[str, list[float]] = {"ours": [], "read": []}
    kernel, read = gemv_from_dram(), plain_read()
    for _ in range(rounds):
        samples["ours"].append(kernel() / 4)
        samples["read"].append(read())
    return {name: round(statistics.median(values), 2) for name, values in samples.items()}


def measure_loads(shape: Shape, entries: list[Entry], threads: int, rounds: int = 3) -> dict[str, float]:
    """Seconds from opening the file to the first token, the file in the page cache; medians."""
    loaded = [entry for entry in entries if entry.path.exists()]
    samples: dict[str, list[float]] = {entry.name: [] for entry in loaded}
    for number in range(rounds + 1):
        for entry in loaded:
            entry.start(threads, shape)
            if number:  # the first round warms the page cache
                samples[entry.name].append(entry.ready["load_s"])
            entry.stop()
        print(f"{shape.name}: loading, round {number} of {rounds}", flush=True)
    return {name: round(statistics.median(values), 4) for name, values in samples.items()}


def measure(
    shape: Shape, entries: list[Entry], threads: int, rounds: int, extras: dict[str, Any]
) -> list[dict[str, Any]]:
    """Interleaved rounds over all contestants; tokens per second, median and range, and the ratio to the best peer.

    What only our engine is asked goes into ``extras``.
    """
    # A small model's prompt takes milliseconds: several in a row, so that waking up is not what is measured.
    decode_tokens, prompts = (16, 1) if shape.ternary_weights > 1e9 else (64, 5)
    singly: list[float] = []
    samples: dict[tuple[str, str], list[float]] = {}
    rss: dict[str, float] = {}
    touched: dict[str, float] = {}
    try:
        for entry in entries:
            entry.start(threads, shape)
        for number in range(rounds):
            # The order turns with the round, so that no contestant always follows the same neighbour.
            for entry in entries[number % len(entries) :] + entries[: number % len(entries)]:
                prefill = entry.ask(op="prefill", tokens=PREFILL_TOKENS, times=prompts)
                decode = entry.ask(op="decode", tokens=decode_tokens, after=DECODE_AFTER)
                samples.setdefault((entry.name, "prefill"), []).append(PREFILL_TOKENS / prefill["seconds"])
                samples.setdefault((entry.name, "decode"), []).append(decode_tokens / decode["seconds"])
                rss[entry.name], touched[entry.name] = decode["rss_mb"], decode["touched_mb"]
                if entry.name == OURS and shape.name == "nis-base":
                    slower = entry.ask(op="decode_singly", tokens=decode_tokens, after=DECODE_AFTER)
                    singly.append(slower["seconds"] / decode["seconds"] - 1.0)
            print(f"{shape.name}, {threads} thread(s): round {number + 1} of {rounds}", flush=True)
        if threads > 1:
            ours = entries[0]
            extras["idle_share"] = ours.ask(op="idle")["seconds"]
            extras.setdefault("head", {})[shape.name] = ours.ask(op="about")["head"]
            if singly:
                extras["python_overhead"] = round(statistics.median(singly), 4)
            if shape.name == "2b4t":
                extras["rss"] = {"peak_mb": rss[OURS], "bare_mb": ours.ready["bare_mb"], "touched_mb": touched[OURS]}
        extras.setdefault("checked", {}).update({entry.name: entry.ready["checked"] for entry in entries})
        loaded = {entry.name: entry.ready["load_s"] for entry in entries}
    finally:
        for entry in entries:
            entry.stop()
    rows: list[dict[str, Any]] = []
    for workload in ("prefill", "decode"):
        medians = {entry.name: statistics.median(samples[entry.name, workload]) for entry in entries}
        best_peer = max((name for name in medians if name != OURS), key=lambda name: medians[name])
        for entry in entries:
            values = sorted(samples[entry.name, workload])
            rows.append(
                {
                    "shape": shape.name,
                    "threads": threads,
                    "workload": f"prefill {PREFILL_TOKENS}" if workload == "prefill" else f"decode {decode_tokens}",
                    "contestant": entry.name,
                    "tokens_per_s_median": round(medians[entry.name], 2),
                    "tokens_per_s_min": round(values[0], 2),
                    "tokens_per_s_max": round(values[-1], 2),
                    "rounds": len(values),
                    "ratio_of_medians_to_best_peer": round(medians[entry.name] / medians[best_peer], 3),
                    "best_peer": best_peer,
                    "load_to_first_token_s": round(loaded[entry.name], 3),
                    "peak_rss_mb": round(rss[entry.name], 1),
                    "file_mb": round(entry.path.stat().st_size / 1e6, 1) if entry.path.exists() else None,
                }
            )
    return rows


def about(peer_python: str) -> dict[str, object]:
    """Machine, commit and peer versions: what a reader needs to judge the figures."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    peer = subprocess.run(
        [peer_python, "-c", "import llama_cpp; print(llama_cpp.__version__)"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "cpu": cpu_model(),
        "machine": platform.machine(),
        "commit": commit.stdout.strip() or None,
        "llama_cpp_python": peer.stdout.strip() or None,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "method": "one process each, interleaved rounds in turning order; random weights; batch 1",
    }


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return fields.get("model name") or fields.get("model") or platform.processor() or "unknown"


def machine_name() -> str:
    words = "".join(c if c.isalnum() else "-" for c in f"{cpu_model()}-{platform.machine()}".lower())
    return "-".join(filter(None, words.split("-")))


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| shape | threads | workload | contestant | tokens/s median [range] | to best peer | peak RSS MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results:
        rate = "{tokens_per_s_median} [{tokens_per_s_min} - {tokens_per_s_max}]".format(**row)
        cells = (row["shape"], row["threads"], row["workload"], row["contestant"], rate)
        lines.append(
            "| " + " | ".join(map(str, (*cells, row["ratio_of_medians_to_best_peer"], row["peak_rss_mb"]))) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
