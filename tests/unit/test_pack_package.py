"""Writing and reading packages: same bytes, any reader, atomic, bounded memory."""

import hashlib
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors import safe_open

from nis_edge.errors import DeviceError, PackFormatError
from nis_edge.pack import layout
from nis_edge.pack.layout import Golden, Manifest, TaskHead
from nis_edge.pack.reader import open_package
from nis_edge.pack.ternary import TernaryMatrix
from nis_edge.pack.writer import write_package
from tests.support.tiny_models import CONSCIOUSNESS_OUTPUTS, tiny_manifest, tiny_tensors, write_tiny_package

SHAPES = {
    "tied": {},
    "untied-f16": {"tied_head": False, "embed": "F16"},
    "bf16-odd-sizes": {"embed": "BF16", "heads": 3, "kv_heads": 1, "head_dim": 6, "hidden": 23, "ffn": 77},
    "no-task-head-no-tokenizer": {"task_heads": {}, "tokenizer": False},
    "llama-like": {"sub_norms": False, "activation": "silu"},
    "two-task-heads": {
        "task_heads": {"physics": TaskHead(0, ("law",)), "consciousness": TaskHead(2, CONSCIOUSNESS_OUTPUTS)}
    },
    "more-than-ten-layers": {"layers": 12},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_was_written_is_what_is_read(tmp_path, shape):
    manifest = tiny_manifest(**shape)
    tensors = tiny_tensors(manifest, seed=3)
    digest = write_package(tmp_path / "a.nis", manifest, tensors)
    assert digest == hashlib.sha256((tmp_path / "a.nis").read_bytes()).hexdigest()
    with open_package(tmp_path / "a.nis") as package:
        assert package.manifest == manifest
        assert package.sha256() == digest
        assert list(package.tensors) == [spec.name for spec in layout.tensor_table(manifest)]
        for name, source in tensors.items():
            if isinstance(source, TernaryMatrix):
                matrix = package.matrix(name)
                assert np.array_equal(matrix.packed, source.packed)
                assert (matrix.rows, matrix.columns) == (source.rows, source.columns)
                assert matrix.scale == np.float32(source.scale)
            else:
                assert np.array_equal(package.tensors[name], source)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_safetensors_library_reads_every_package(tmp_path, shape):
    path = write_tiny_package(tmp_path / "a.nis", **shape)
    with safe_open(path, framework="numpy") as theirs, open_package(path) as ours:
        assert set(theirs.metadata()) == {"nis", "nis.header", "nis.tensors"}
        assert theirs.metadata()["nis"] == layout.encode_manifest(ours.manifest)
        names = {name for name in theirs.keys() if not name.startswith("pad.")}  # noqa: SIM118 (no mapping)
        assert names == set(ours.tensors)
        for name in names:
            if ours.specs[name].dtype != "BF16":  # numpy, and so the library's numpy reader, has no bfloat16
                assert np.array_equal(theirs.get_tensor(name), ours.tensors[name])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_tensor_is_aligned_in_file_and_memory_and_read_only(tmp_path, shape):
    with open_package(write_tiny_package(tmp_path / "a.nis", **shape)) as package:
        for name, array in package.tensors.items():
            assert package.offset(name) % 64 == 0
            assert array.ctypes.data % 64 == 0
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_the_same_model_gives_the_same_bytes_in_any_order_of_insertion(tmp_path):
    manifest = tiny_manifest(specials=("a", "b", "c"))
    tensors = tiny_tensors(manifest)
    write_package(tmp_path / "a.nis", manifest, tensors)
    turned = msgspec.convert(_reversed(msgspec.to_builtins(manifest)), Manifest)
    write_package(tmp_path / "b.nis", turned, dict(reversed(tensors.items())))
    assert (tmp_path / "a.nis").read_bytes() == (tmp_path / "b.nis").read_bytes()


def test_a_package_repacked_from_its_own_map_is_the_same(tmp_path):
    path = write_tiny_package(tmp_path / "a.nis", embed="BF16", tied_head=False)
    before = path.read_bytes()
    with open_package(path) as package:
        write_package(path, package.manifest, package.tensors)
        assert path.read_bytes() == before
        # The old file is still mapped and still right.
        package.check_content()


def test_lazy_and_chunked_sources_give_the_same_bytes(tmp_path):
    manifest = tiny_manifest()
    tensors = tiny_tensors(manifest)
    write_package(tmp_path / "a.nis", manifest, tensors)
    lazy = {name: (lambda source=source: source) for name, source in tensors.items() if name != "tokenizer"}
    lazy["embed"] = lambda: (tensors["embed"][row : row + 7] for row in range(0, 320, 7))
    lazy["tokenizer"] = tensors["tokenizer"]
    write_package(tmp_path / "b.nis", manifest, lazy)
    assert (tmp_path / "a.nis").read_bytes() == (tmp_path / "b.nis").read_bytes()


def test_an_integer_given_for_a_real_number_gives_the_same_bytes():
    assert layout.encode_manifest(tiny_manifest(rope_theta=10_000)) == layout.encode_manifest(tiny_manifest())


def test_views_outlive_the_package(tmp_path):
    package = open_package(write_tiny_package(tmp_path / "a.nis"))
    embed = package.tensors["embed"]
    copy = embed.copy()
    package.close()
    package.close()
    (tmp_path / "a.nis").unlink()
    assert np.array_equal(embed, copy)
    with pytest.raises(PackFormatError, match="was closed"):
        package.sha256()


def _change(tensors, name, value):
    return {**tensors, name: value}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {name: value for name, value in t.items() if name != "norm"}, "norm is missing"),
        (lambda t: {name: value for name, value in t.items() if name != "trunk.1.up"}, "trunk.1.up is missing"),
        (lambda t: _change(t, "trunk.1.up", t["trunk.1.up"].packed), "trunk.1.up.scale is missing"),
        (lambda t: _change(t, "trunk.1.up", lambda: t["trunk.1.up"].packed), "trunk.1.up.scale is missing"),
        (lambda t: _change(t, "trunk.1.up.scale", np.ones(1, np.float32)), "given twice"),
        (lambda t: _change(t, "head", t["embed"]), "no part of the architecture"),
        (lambda t: _change(t, "norm", np.ones(63, np.float32)), "63 rows"),
        (lambda t: _change(t, "norm", np.ones(65, np.float32)), "65 rows"),
        (lambda t: _change(t, "norm", np.ones(64, np.float64)), "float64"),
        (lambda t: _change(t, "norm", np.ones((), np.float32)), "norm"),
        (lambda t: _change(t, "norm", np.full(64, np.nan, np.float32)), "NaN"),
        (lambda t: _change(t, "embed", t["embed"].T), r"embed"),
        (lambda t: _change(t, "embed", lambda: iter([t["embed"]] * 2)), "rows or more"),
        (lambda t: _change(t, "trunk.0.q", t["trunk.0.k"]), "is 32 x 64"),
        (lambda t: _change(t, "trunk.0.q", TernaryMatrix(t["trunk.0.q"].packed, 64, 64, float("nan"))), "NaN"),
        (lambda t: _change(t, "trunk.0.q", TernaryMatrix(t["trunk.0.q"].packed, 64, 64, -1.0)), "above zero"),
        (lambda t: _change(t, "tokenizer", np.zeros(0, np.uint8)), "tokenizer"),
        (lambda t: _change(t, "tokenizer", np.frombuffer(b'{"model":{"vocab":{"a":320}}}', np.uint8)), "320"),
    ],
)
def test_tensors_that_do_not_fit_the_manifest_are_refused_and_the_old_file_stays(tmp_path, change, message):
    path = tmp_path / "a.nis"
    path.write_bytes(b"old")
    manifest = tiny_manifest()
    with pytest.raises(PackFormatError, match=message):
        write_package(path, manifest, change(tiny_tensors(manifest)))
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.nis"]


def test_an_endless_source_is_stopped_when_the_tensor_is_full(tmp_path):
    manifest = tiny_manifest()
    tensors = tiny_tensors(manifest)

    def endless():
        yield tensors["embed"]
        yield tensors["embed"][:1]
        pytest.fail("the writer went on asking for rows")

    with pytest.raises(PackFormatError, match="has 321 rows or more"):
        write_package(tmp_path / "a.nis", manifest, {**tensors, "embed": endless})


def test_a_manifest_out_of_bounds_is_not_written(tmp_path):
    manifest = tiny_manifest(golden=(Golden((400,), "0" * 64),))
    with pytest.raises(PackFormatError, match="outside the vocabulary"):
        write_package(tmp_path / "a.nis", manifest, tiny_tensors(manifest))
    manifest = msgspec.structs.replace(tiny_manifest(), lineage={"loss": float("nan")})
    with pytest.raises(PackFormatError, match="JSON"):
        write_package(tmp_path / "a.nis", manifest, tiny_tensors(manifest))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.nis"
    path.write_bytes(b"old")
    manifest = tiny_manifest()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ, so the write fails with EFBIG, on the same path as ENOSPC.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(DeviceError, match="can't be written"):
            write_package(path, manifest, tiny_tensors(manifest))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.nis"]


def test_a_folder_that_is_missing_is_one_clear_error(tmp_path):
    manifest = tiny_manifest()
    with pytest.raises(DeviceError, match="No such file"):
        write_package(tmp_path / "no" / "a.nis", manifest, tiny_tensors(manifest))


def test_an_interrupted_source_leaves_no_partial_file(tmp_path):
    manifest = tiny_manifest()

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_package(tmp_path / "a.nis", manifest, {**tiny_tensors(manifest), "trunk.1.down": interrupted})
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_durable_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "pwrite"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1])
    real_replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append("replace"), real_replace(self, to))[1])
    write_tiny_package(tmp_path / "a.nis")
    order = [call for call in calls if call != "pwrite"]
    assert order == ["fsync", "replace", "fsync"]
    assert calls.index("fsync") > max(index for index, call in enumerate(calls) if call == "pwrite")


@pytest.mark.slow
def test_packing_a_large_model_needs_little_memory(tmp_path):
    """A model of 300 MB from lazy sources, in a process that may use 200 MB more than it starts with."""
    program = textwrap.dedent(
        """
        import resource, sys
        import numpy as np
        from nis_edge.pack.layout import tensor_table
        from nis_edge.pack.ternary import TernaryMatrix
        from nis_edge.pack.reader import open_package
        from nis_edge.pack.writer import write_package
        from tests.support.tiny_models import tiny_manifest

        manifest = tiny_manifest(hidden=1024, ffn=4096, layers=8, heads=16, kv_heads=16, head_dim=64, vocab=64_000,
                                 tokenizer=False, task_heads={})
        sources = {}
        for spec in tensor_table(manifest):
            if spec.matrix:
                sources[spec.name] = lambda spec=spec: TernaryMatrix.from_codes(np.ones(spec.matrix, np.int8), 0.5)
            elif spec.name == "embed":
                sources["embed"] = lambda: (np.ones((1000, 1024), np.float32) for _ in range(64))
            elif not spec.name.endswith(".scale"):
                sources[spec.name] = np.ones(spec.shape, np.float32)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        write_package(sys.argv[1], manifest, sources)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    )
    path = tmp_path / "large.nis"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert path.stat().st_size > 280e6
    assert int(done.stdout) < 200_000  # KiB


def _reversed(value):
    """The same JSON value with the keys of every object in reverse."""
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return value
