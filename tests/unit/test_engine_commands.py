"""`nis-edge logits` and `nis-edge generate`, as one types them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from nis_edge.cli import main
from nis_edge.commands.generate import printable
from nis_edge.engine import library
from nis_edge.pack.writer import write_package
from tests.support.tiny_models import tiny_manifest, tiny_tensors, write_tiny_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_package(tmp_path_factory.mktemp("commands") / "tiny.nis"))


def test_logits_are_written_and_are_the_same_on_every_instruction_set(
    package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = set()
    for isa in library.offered_isas():
        output = tmp_path / f"{isa}.npy"
        words = ["logits", "-m", package, "--tokens", "1, 2,3", "-o", str(output), "--isa", isa, "--json"]
        assert main(words) == 0
        facts = json.loads(capsys.readouterr().out)
        logits = np.load(output)
        assert facts["shape"] == [3, 320] == list(logits.shape)
        assert facts["isa"] == isa
        assert facts["sha256"] == hashlib.sha256(logits.tobytes()).hexdigest()
        digests.add(facts["sha256"])
    assert len(digests) == 1


@pytest.mark.parametrize("kv", ["F32", "F16", "I8"])
def test_logits_are_the_same_after_saving_and_restoring_and_in_any_chunks(
    package: str, tmp_path: Path, kv: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = ",".join(str(7 * i % 320) for i in range(100))
    digests = set()
    for more in ([], ["--chunk", "7"], ["--save-at", "66"], ["--chunk", "30", "--save-at", "90", "--threads", "2"]):
        words = ["logits", "-m", package, "--tokens", ids, "-o", str(tmp_path / "l.npy"), "--kv", kv, "--json", *more]
        assert main(words) == 0
        digests.add(json.loads(capsys.readouterr().out)["sha256"])
    assert len(digests) == 1


def test_the_reference_backend_writes_nearly_the_same(package: str, tmp_path: Path) -> None:
    for backend in ("native", "reference"):
        words = ["logits", "-m", package, "--tokens", "7,8,9", "-o", str(tmp_path / backend), "--backend", backend]
        assert main(words) == 0
    np.testing.assert_allclose(np.load(tmp_path / "native"), np.load(tmp_path / "reference"), atol=1e-3)


BAD = {
    "no id": (["--tokens", "1,x"], "entry 2, 'x', is no token id"),
    "empty": (["--tokens", ""], "entry 1"),
    "beyond the vocabulary": (["--tokens", "1,320"], "outside the vocabulary of 320"),
    "too many": (["--tokens", ",".join(["1"] * 129)], "129 more tokens do not fit"),
    "instruction set": (["--tokens", "1", "--isa", "mmx"], "this CPU offers"),
    "threads": (["--tokens", "1", "--threads", "0"], "0 threads"),
    "saved beyond the end": (["--tokens", "1,2", "--save-at", "2"], "--save-at 2: 1 to 1"),
    "chunk of nothing": (["--tokens", "1,2", "--chunk", "0"], "--chunk 0"),
    "reference saved": (["--tokens", "1,2", "--backend", "reference", "--save-at", "1"], "native backend"),
    "no package": (["--tokens", "1", "-m", "/nonexistent.nis"], "/nonexistent.nis"),
    "reference with isa": (["--tokens", "1", "--backend", "reference", "--isa", "scalar"], "native backend"),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_leaves_no_file(
    package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["logits", "-m", package, "-o", str(tmp_path / "out.npy"), *words]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_generate_prints_the_same_text_twice(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "-m", package, "The agent", "--max-tokens", "12", "--temperature", "40", "--seed", "5"]
    texts = []
    for threads in ("1", "2"):
        assert main([*words, "--threads", threads]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert len(texts[0]) > 5


def test_generate_without_a_tokenizer_speaks_token_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tiny_package(tmp_path / "bare.nis", tokenizer=False)
    assert main(["generate", "-m", str(path), "1,2,3", "--max-tokens", "4", "--stats"]) == 0
    captured = capsys.readouterr()
    assert len([int(word) for word in captured.out.split()]) == 4
    assert "tokens/s" in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x" * 3000], "leaves no room"),
        (["hello", "--max-tokens", "0"], "0 tokens: 1 or more"),
        (["hello", "--temperature", "-1"], "temperature"),
        (["hello", "--top-p", "nan"], "top_p nan"),
        (["hello", "--regex", "(?=a)"], "character 2: groups that begin with (? are not supported"),
        (["hello", "--choices", "a,,b"], "a choice of 0 characters"),
        (["hello", "--json-schema", "/nonexistent.json"], "/nonexistent.json"),
        (["hello", "--regex", "a{40}", "--max-tokens", "3"], "shortest answer has 40 tokens, 3 may be made"),
    ],
)
def test_generate_refuses_in_one_line(
    package: str, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["generate", "-m", package, *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_generate_answers_with_one_of_the_choices_or_by_the_schema(
    package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "-m", package, "Is it safe? ", "--choices", "yes,no,not sure"]) == 0
    assert capsys.readouterr().out in ("yes\n", "no\n", "not sure\n")
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"volts": {"type": "integer", "maximum": 24}}}')
    words = ["generate", "-m", package, "Report: ", "--json-schema", str(schema), "--temperature", "2", "--json"]
    assert main([*words, "--seed", "4"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["finish"] == "complete" and len(facts["tokens"]) == len(facts["log_probabilities"])
    assert set(json.loads(facts["text"])) <= {"volts"}


def test_a_models_text_can_not_steer_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\n\tc\x9b") == "a\ufffd[2Jb\ufffd\n\tc\ufffd"


def test_a_chat_puts_the_question_by_the_packages_own_template(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    manifest = tiny_manifest()
    manifest = replace(manifest, tokenizer=replace(manifest.tokenizer, chat_template=template))
    package = str(tmp_path / "chat.nis")
    write_package(package, manifest, tiny_tensors(manifest, 1))
    words = ["generate", "-m", package, "--max-tokens", "24"]
    assert main([*words, "--chat", "--system", "be brief", "The agent"]) == 0
    asked = capsys.readouterr().out
    assert main([*words, "system: be brief\nuser: The agent\nassistant: "]) == 0
    assert asked == capsys.readouterr().out
    assert main([*words, "The agent"]) == 0
    assert asked != capsys.readouterr().out


def test_a_chat_without_a_template_or_a_system_without_a_chat_is_refused(
    package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "-m", package, "--chat", "hello"]) == 2
    assert "no chat template" in capsys.readouterr().err
    assert main(["generate", "-m", package, "--system", "x", "hello"]) == 2
    assert "--system belongs to --chat" in capsys.readouterr().err
