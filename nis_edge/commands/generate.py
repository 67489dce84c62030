"""`nis-edge generate`: text from a model package, printed as it comes."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nis_edge.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from nis_edge.engine.generation import Piece, Wish
    from nis_edge.engine.model import Model
    from nis_edge.engine.regular import Pattern
    from nis_edge.engine.sampler import Sampling
    from nis_edge.engine.tokenizer import Tokenizer

DESCRIPTION = (
    "Continue a prompt, one token after another, to standard output. A package without a tokenizer takes token ids as\n"
    "its prompt and prints token ids."
)
EXAMPLE = 'nis-edge generate -m model.nis --choices yes,no "Is the pump running? Answer: "'

BEGIN: Final = "bos"
"""Special token put before the prompt if the package has it."""

PROMPT_CHARS_MAX: Final = 4 * 1024 * 1024
"""The longest context allowed is 2**20 tokens, of about four characters each."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("prompt", metavar="PROMPT", help="the text to continue; - reads standard input")
    parser.add_argument("-m", "--model", metavar="PKG", type=Path, required=True, help="the package")
    parser.add_argument("--chat", action="store_true", help="the prompt is a question, put by the package's template")
    parser.add_argument("--system", metavar="TEXT", help="with --chat: what the model is told first")
    parser.add_argument("--max-tokens", metavar="N", type=int, default=128, help="tokens to make (default: 128)")
    parser.add_argument("--stop", metavar="TEXT", action="append", default=[], help="end before this text; repeatable")
    parser.add_argument("--isa", metavar="NAME", help="instruction set (default: the best this CPU offers)")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="threads of the engine (default: 1)")
    parser.add_argument("--kv", choices=("F32", "F16", "I8"), default="F32", help="how keys and values are kept")
    parser.add_argument("--window", metavar="N", type=int, help="keep the last N positions and the first 4: no end")
    parser.add_argument("--stats", action="store_true", help="print tokens per second to standard error")
    parser.add_argument("--json", action="store_true", help="print text, tokens, log-probabilities as JSON at the end")
    drawn = parser.add_argument_group("how tokens are chosen (the same seed gives the same text on every machine)")
    drawn.add_argument("--temperature", metavar="T", type=float, default=0.0, help="0: the most likely (default)")
    drawn.add_argument("--top-k", metavar="K", type=int, default=0, help="only the K most likely")
    drawn.add_argument("--top-p", metavar="P", type=float, default=1.0, help="only those that make up this share")
    drawn.add_argument("--min-p", metavar="P", type=float, default=0.0, help="none less likely than P of the best")
    drawn.add_argument("--repetition-penalty", metavar="R", type=float, default=1.0, help="above 1: fewer repetitions")
    drawn.add_argument("--seed", metavar="N", type=int, default=0, help="of the draws (default: 0)")
    bound = parser.add_argument_group("what the text may be (one of)").add_mutually_exclusive_group()
    bound.add_argument("--json-schema", metavar="FILE", type=Path, help="JSON that validates against the schema")
    bound.add_argument("--choices", metavar="A,B,C", help="one of these texts")
    bound.add_argument("--regex", metavar="EXPR", help="a text that the regular expression matches whole")


def run(args: argparse.Namespace) -> int:
    """Generate; 0 at the end of the text or of --max-tokens.

    Raises:
        ConfigError: an argument is wrong (the operator acts).
        ModelError: the package can't be used, or the prompt does not fit it.
    """
    from nis_edge.engine.constraint import constraint_of
    from nis_edge.engine.generation import Wish
    from nis_edge.engine.model import Model

    sampling = _sampling(args)
    pattern = _pattern(args)
    prompt = sys.stdin.read(PROMPT_CHARS_MAX + 1) if args.prompt == "-" else args.prompt
    if len(prompt) > PROMPT_CHARS_MAX:
        raise ConfigError(f"the prompt is longer than {PROMPT_CHARS_MAX} characters")
    if args.system is not None and not args.chat:
        raise ConfigError("--system belongs to --chat")
    with Model.open(args.model, threads=args.threads, isa=args.isa) as model:
        constraint = None if pattern is None else constraint_of(model.vocabulary, pattern)
        likely = 0 if args.json else None
        wish = Wish(args.max_tokens, sampling, tuple(args.stop), constraint, likely)
        tokens = _chat_tokens(model, prompt, args.system) if args.chat else _prompt_tokens(model.tokenizer, prompt)
        _generate(model, tokens, wish, args)
    return 0


def _sampling(args: argparse.Namespace) -> Sampling:
    from nis_edge.engine.sampler import Sampling

    return Sampling(
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
    )


def _pattern(args: argparse.Namespace) -> Pattern | None:
    from nis_edge.engine import constraint

    if args.json_schema is not None:
        return _schema_of(args.json_schema)
    if args.choices is not None:
        return constraint.choices(args.choices.split(","))
    return None if args.regex is None else constraint.expression(args.regex)


def _schema_of(path: Path) -> Pattern:
    from nis_edge.engine import json_schema

    try:
        with path.open("rb") as file:
            source = file.read(json_schema.SCHEMA_BYTES_MAX + 1)
        return json_schema.parse_schema(source.decode())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the JSON schema {path} can't be read: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _prompt_tokens(tokenizer: Tokenizer | None, prompt: str) -> list[int]:
    from nis_edge.commands.logits import parse_tokens

    if tokenizer is None:
        return parse_tokens(prompt)
    tokens = tokenizer.encode(prompt)
    begin = tokenizer.find_special(BEGIN)
    tokens = tokens if begin is None else [begin, *tokens]
    if not tokens:
        raise ConfigError("the prompt is empty; give at least one character")
    return tokens


def _chat_tokens(model: Model, question: str, system: str | None) -> list[int]:
    from nis_edge.completions import chat_prompt

    if model.tokenizer is None:
        raise ModelError(f"{model.package.path}: the package has no tokenizer, so it can't chat")
    first = [] if system is None else [{"role": "system", "content": system}]
    # The template writes the token that begins a text, where the model wants one.
    return model.tokenizer.encode(chat_prompt(model, [*first, {"role": "user", "content": question}]))


def _generate(model: Model, tokens: list[int], wish: Wish, args: argparse.Namespace) -> None:
    from nis_edge.engine.generation import Answer

    if args.window is not None:
        session = model.session(window=args.window, kv=args.kv)
    else:
        context = model.manifest.architecture.context
        if len(tokens) >= context:
            raise ModelError(f"{args.model}: a prompt of {len(tokens)} tokens leaves no room in {context} positions")
        session = model.session(max_positions=min(context, len(tokens) + wish.max_tokens), kv=args.kv)
    answer = Answer(model, session, tokens, wish)
    started = time.monotonic()
    prompt_done = started
    pieces: list[Piece] = []
    for piece in answer:
        if not pieces:
            prompt_done = time.monotonic()
        pieces.append(piece)
        if not args.json:
            sys.stdout.write(printable(piece.text))
            sys.stdout.flush()
    if args.json:
        facts = {
            "text": "".join(piece.text for piece in pieces),
            "finish": answer.finish,
            "tokens": [piece.token for piece in pieces if piece.token is not None],
            "log_probabilities": [piece.log_probability for piece in pieces if piece.token is not None],
            "isa": model.isa,
        }
        sys.stdout.write(json.dumps(facts, ensure_ascii=False))
    sys.stdout.write("\n")
    sys.stdout.flush()
    if args.stats:
        prompt_s, decode_s = prompt_done - started, time.monotonic() - prompt_done
        decode = f", then {(answer.made - 1) / decode_s:.1f} tokens/s" if answer.made > 1 and decode_s > 0 else ""
        rate = f" at {len(tokens) / prompt_s:.1f}/s" if prompt_s > 0 else ""
        print(f"{len(tokens)} prompt tokens{rate}{decode}, {answer.finish} ({model.isa})", file=sys.stderr)


def printable(text: str) -> str:
    """A model's text without the control characters that would steer a terminal; line ends and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
