"""`nis-edge generate`: text from a model package, printed as it comes."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nis_edge.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from nis_edge.engine.model import Model
    from nis_edge.engine.sampler import Sampler
    from nis_edge.engine.tokenizer import Tokenizer

DESCRIPTION = (
    "Continue a prompt, one token after another, to standard output. A package without a tokenizer takes token ids as\n"
    "its prompt and prints token ids."
)
EXAMPLE = 'nis-edge generate -m model.nis --max-tokens 64 "The agent reads the sensor"'

BEGIN: Final = "bos"
"""Special token put before the prompt if the package has it."""

PROMPT_CHARS_MAX: Final = 4 * 1024 * 1024
"""The longest context allowed is 2**20 tokens, of about four characters each."""

ENDS: Final = ("eos", "eot")
"""Special tokens that end the text."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("prompt", metavar="PROMPT", help="the text to continue; - reads standard input")
    parser.add_argument("-m", "--model", metavar="PKG", type=Path, required=True, help="the package")
    parser.add_argument("--max-tokens", metavar="N", type=int, default=128, help="tokens to make (default: 128)")
    parser.add_argument("--temperature", metavar="T", type=float, default=0.0, help="0: the most likely (default)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument("--isa", metavar="NAME", help="instruction set (default: the best this CPU offers)")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="threads of the engine (default: 1)")
    parser.add_argument("--stats", action="store_true", help="print tokens per second to standard error")


def run(args: argparse.Namespace) -> int:
    """Generate; 0 at the end of the text or of --max-tokens.

    Raises:
        ConfigError: an argument is wrong (the operator acts).
        ModelError: the package can't be used, or the prompt does not fit it.
    """
    from nis_edge.engine.model import Model
    from nis_edge.engine.sampler import Sampler

    if args.max_tokens < 1:
        raise ConfigError(f"--max-tokens {args.max_tokens}: 1 or more")
    sampler = Sampler(args.temperature, args.seed)
    prompt = sys.stdin.read(PROMPT_CHARS_MAX + 1) if args.prompt == "-" else args.prompt
    if len(prompt) > PROMPT_CHARS_MAX:
        raise ConfigError(f"the prompt is longer than {PROMPT_CHARS_MAX} characters")
    with Model.open(args.model, threads=args.threads, isa=args.isa) as model:
        tokens = _prompt_tokens(model.tokenizer, prompt)
        context = model.manifest.architecture.context
        if len(tokens) >= context:
            raise ModelError(f"{args.model}: a prompt of {len(tokens)} tokens leaves no room in {context} positions")
        _generate(model, tokens, min(args.max_tokens, context - len(tokens)), sampler, args.stats)
    return 0


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


def _generate(model: Model, tokens: list[int], count: int, sampler: Sampler, stats: bool) -> None:
    from nis_edge.engine.tokenizer import TextStream

    tokenizer = model.tokenizer
    stream = None if tokenizer is None else TextStream(tokenizer)
    ends = set() if tokenizer is None else {tokenizer.find_special(name) for name in ENDS}
    session = model.session(max_positions=len(tokens) + count)
    started = time.monotonic()
    logits = session.forward(tokens)
    prompt_done = time.monotonic()
    made = 0
    while True:
        token = sampler.pick(logits)
        made += 1
        if token in ends:
            break
        sys.stdout.write(f"{token} " if stream is None else printable(stream.add(token)))
        sys.stdout.flush()
        if made == count:
            break
        logits = session.forward([token])
    sys.stdout.write("\n")
    sys.stdout.flush()
    if stats:
        prompt_s, decode_s = prompt_done - started, time.monotonic() - prompt_done
        decode = f", then {(made - 1) / decode_s:.1f} tokens/s" if made > 1 else ""
        print(f"{len(tokens)} prompt tokens at {len(tokens) / prompt_s:.1f}/s{decode} ({model.isa})", file=sys.stderr)


def printable(text: str) -> str:
    """A model's text without the control characters that would steer a terminal; line ends and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
