"""A package as ONNX graphs, so that ONNX Runtime computes the same model: the graph of models/FORMAT.md, box by box.

A model becomes one graph for the trunk with the output head and one for each task head:

    trunk         tokens [n], wanted [m], past.*            -> logits [m, vocab], residual [n, hidden], present.*
    head.NAME     residual [n, hidden], past.*              -> outputs [n, outputs], present.*

`past.I.keys` and `past.I.values` are float32 [kv_heads, past, head_dim], keys after rotation; `present.*` are the same
with this call's positions appended, so a caller feeds one call's outputs to the next. `wanted` are the rows whose
logits are computed. Integer sums are exact either way the ternary weights are stored:

    int8   MatMulInteger of uint8 activations (int8 plus 128) and int8 weights. ONNX Runtime 1.32 on AVX2 runs signed
           activations 40 times slower; its unsigned kernel adds pairs in 16 bits, which ternary weights can't overflow;
    2bit   MatMulNBits, two bits a weight, over activations that are integers in float32: no partial sum leaves the
           24 bits that float32 holds exactly, so the order of summation cannot matter.

Float parts follow ONNX Runtime's own order of operations: logits agree with the engine's within a tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper, save_model

from nis_edge import __version__
from nis_edge.engine.reference import rotary_angles
from nis_edge.errors import ModelError
from nis_edge.pack.layout import Architecture
from nis_edge.pack.reader import Package
from nis_edge.pack.ternary import unpack_ternary

Weights = Literal["2bit", "int8"]

WEIGHTS: Final[tuple[Weights, ...]] = ("2bit", "int8")

TRUNK: Final = "trunk"

OPSET: Final = 20
"""Of the standard domain; ONNX Runtime 1.17 and later run it."""

IR_VERSION: Final = 9
"""ONNX 1.15's, the first with opset 20."""

CONTRIB: Final = "com.microsoft"
"""ONNX Runtime's own operators; MatMulNBits is one."""

ZERO_POINT: Final = 128
"""What is added to an int8 activation to make it a uint8."""

BLOCK_COLUMNS: Final = 128
"""Columns that share a scale in MatMulNBits; every scale is 1, so large blocks only save memory."""

EXACT_COLUMNS_MAX: Final = (1 << 24) // 128
"""Columns whose sum of int8 values stays exact in float32: 2**24 / 128."""

INLINE_BYTES_MAX: Final = 1 << 30
"""Larger graphs keep their weights in a file beside them; a protobuf message ends at 2 GiB."""


def graph_names(package: Package) -> list[str]:
    """The graphs a package becomes: the trunk, then its task heads."""
    return [TRUNK, *(head_graph(name) for name in sorted(package.manifest.architecture.task_heads))]


def head_graph(name: str) -> str:
    """Name of a task head's graph."""
    return f"head.{name}"


def build_graph(package: Package, name: str, weights: Weights) -> ModelProto:
    """One graph of a package.

    Args:
        package: an open package.
        name: one of ``graph_names``.
        weights: how ternary weights are stored.

    Raises:
        ModelError: a row of weights is too long for exact sums in the chosen form; take the other.
    """
    architecture = package.manifest.architecture
    graph = _Graph(package, weights)
    if name == TRUNK:
        graph.trunk()
    else:
        graph.task_head(name.removeprefix("head."), architecture)
    made = helper.make_model(
        helper.make_graph(graph.nodes, name, graph.inputs, graph.outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)],
        producer_name="nis-edge",
        producer_version=__version__,
    )
    made.ir_version = IR_VERSION
    helper.set_model_props(
        made,
        {
            "nis.model": f"{package.manifest.model.id} {package.manifest.model.version}",
            "nis.package_sha256": package.sha256(),
            "nis.weights": weights,
        },
    )
    return made


def write_graph(model: ModelProto, path: Path) -> None:
    """Write a graph as `path`; weights of a large one go to `path` + ".data"."""
    if model.ByteSize() <= INLINE_BYTES_MAX:
        save_model(model, path)
    else:
        save_model(model, path, save_as_external_data=True, location=f"{path.name}.data")
    checker.check_model(path)


class _Graph:
    """Nodes and initializers in the order of computation; every method returns the name of its result."""

    def __init__(self, package: Package, weights: Weights) -> None:
        self.package = package
        self.weights = weights
        self.shape: Architecture = package.manifest.architecture
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self._constants: dict[tuple[str, Any], str] = {}

    # ---- the two kinds of graph ----------------------------------------------------------------------------------

    def trunk(self) -> None:
        """Tokens to residual stream and logits."""
        shape = self.shape
        tokens = self._input("tokens", TensorProto.INT64, ["n"])
        wanted = self._input("wanted", TensorProto.INT64, ["m"])
        embed = self._initializer("embed", self.package.float32("embed"))
        x = self._layers("trunk", shape.layers, self.op("Gather", embed, tokens))
        self._output("residual", x, ["n", shape.hidden])
        normed = self._norm(self.op("Gather", x, wanted), "norm")
        head = embed if shape.tied_head else self._initializer("head", self.package.float32("head"))
        logits = self.op("Gemm", normed, head, transB=1)
        self._output("logits", logits, ["m", shape.vocab])

    def task_head(self, name: str, shape: Architecture) -> None:
        """Residual stream to the outputs of a task head, at every position."""
        head = shape.task_heads[name]
        x = self._layers(f"heads.{name}", head.layers, self._input("residual", TensorProto.FLOAT, ["n", shape.hidden]))
        projection = self._initializer("projection", self.package.float32(f"heads.{name}.projection"))
        bias = self._initializer("bias", self.package.float32(f"heads.{name}.bias"))
        outputs = self.op("Gemm", self._norm(x, f"heads.{name}.norm"), projection, bias, transB=1)
        self._output("outputs", outputs, ["n", len(head.outputs)])

    # ---- the transformer -----------------------------------------------------------------------------------------

    def _layers(self, stack: str, count: int, x: str) -> str:
        if count == 0:
            return x
        cache: list[int | str] = [self.shape.kv_heads, "past", self.shape.head_dim]
        for index in range(count):
            for kind in ("keys", "values"):
                self._input(f"past.{index}.{kind}", TensorProto.FLOAT, cache)
        past = self._length_of("past.0.keys", 1)
        n = self._length_of(x, 0)
        seen = self.op("Add", past, n)
        positions = self.op("Range", self._scalar(past), self._scalar(seen), self._integer(1))  # [n]
        cosines, sines = rotary_angles(self.shape.context, self.shape.head_dim, self.shape.rope_theta)
        cos = self.op("Gather", self._initializer("cosines", cosines), positions)  # [n, head_dim / 2]
        sin = self.op("Gather", self._initializer("sines", sines), positions)
        mask = self._causal_mask(positions, seen)
        for index in range(count):
            prefix = f"{stack}.{index}"
            attended = self._attention(prefix, index, self._norm(x, f"{prefix}.attn_norm"), cos, sin, mask)
            x = self.op("Add", x, attended)
            x = self.op("Add", x, self._feed_forward(prefix, self._norm(x, f"{prefix}.ffn_norm")))
        return x

    def _causal_mask(self, positions: str, seen: str) -> str:
        """float32 [n, seen]: 0 where a position may look, minus infinity where not."""
        keys = self.op("Range", self._integer(0), self._scalar(seen), self._integer(1))
        future = self.op("Less", self.op("Unsqueeze", positions, self._integers([1])), keys)
        return self.op("Where", future, self._float(-np.inf), self._float(0.0))

    def _attention(self, prefix: str, index: int, x: str, cos: str, sin: str, mask: str) -> str:
        shape = self.shape
        group = shape.heads // shape.kv_heads
        activations = self._quantise(x)
        q = self._heads(self._linear(f"{prefix}.q", *activations), shape.heads)  # [heads, n, head_dim]
        k = self._heads(self._linear(f"{prefix}.k", *activations), shape.kv_heads)
        v = self._heads(self._linear(f"{prefix}.v", *activations), shape.kv_heads)
        q, k = self._rotate(q, cos, sin), self._rotate(k, cos, sin)
        keys = self.op("Concat", f"past.{index}.keys", k, axis=1)
        values = self.op("Concat", f"past.{index}.values", v, axis=1)
        cache: list[int | str] = [shape.kv_heads, "seen", shape.head_dim]
        self._output(f"present.{index}.keys", keys, cache)
        self._output(f"present.{index}.values", values, cache)
        # Query head h reads keys and values of h // group: a group axis that broadcasts.
        q = self.op("Reshape", q, self._integers([shape.kv_heads, group, -1, shape.head_dim]))
        keys = self.op("Unsqueeze", self.op("Transpose", keys, perm=[0, 2, 1]), self._integers([1]))
        values = self.op("Unsqueeze", values, self._integers([1]))
        scores = self.op("Mul", self.op("MatMul", q, keys), self._float(1 / np.sqrt(shape.head_dim)))
        mixed = self.op("MatMul", self.op("Softmax", self.op("Add", scores, mask), axis=-1), values)
        mixed = self.op("Reshape", mixed, self._integers([shape.heads, -1, shape.head_dim]))
        joined = self.op("Transpose", mixed, perm=[1, 0, 2])
        joined = self.op("Reshape", joined, self._integers([-1, shape.heads * shape.head_dim]))
        return self._linear(f"{prefix}.o", *self._quantise(self._sub_norm(joined, f"{prefix}.attn_sub_norm")))

    def _heads(self, x: str, count: int) -> str:
        """[n, count * head_dim] to [count, n, head_dim]."""
        split = self.op("Reshape", x, self._integers([-1, count, self.shape.head_dim]))
        return self.op("Transpose", split, perm=[1, 0, 2])

    def _rotate(self, x: str, cos: str, sin: str) -> str:
        half = self.shape.head_dim // 2
        first, second = self._split(x, half)
        return self.op(
            "Concat",
            self.op("Sub", self.op("Mul", first, cos), self.op("Mul", second, sin)),
            self.op("Add", self.op("Mul", second, cos), self.op("Mul", first, sin)),
            axis=-1,
        )

    def _feed_forward(self, prefix: str, x: str) -> str:
        activations = self._quantise(x)
        gate, up = (self._linear(f"{prefix}.{name}", *activations) for name in ("gate", "up"))
        if self.shape.activation == "silu":
            gate = self.op("Mul", gate, self.op("Sigmoid", gate))
        else:
            positive = self.op("Relu", gate)
            gate = self.op("Mul", positive, positive)
        gated = self.op("Mul", gate, up)
        return self._linear(f"{prefix}.down", *self._quantise(self._sub_norm(gated, f"{prefix}.ffn_sub_norm")))

    def _sub_norm(self, x: str, name: str) -> str:
        return self._norm(x, name) if self.shape.sub_norms else x

    def _norm(self, x: str, name: str) -> str:
        mean = self.op("ReduceMean", self.op("Mul", x, x), self._integers([-1]))
        root = self.op("Sqrt", self.op("Add", mean, self._float(self.shape.norm_eps)))
        return self.op("Mul", self.op("Div", x, root), self._initializer(name, self.package.float32(name)))

    # ---- ternary times int8 --------------------------------------------------------------------------------------

    def _quantise(self, x: str) -> tuple[str, str]:
        """Activations [n, width] as ``_linear`` takes them, and the scale they were multiplied with, float32 [n, 1]."""
        largest = self.op("ReduceMax", self.op("Abs", x), self._integers([-1]))
        s = self.op("Div", self._float(127.0), self.op("Max", largest, self._float(1e-5)))
        rounded = self.op("Round", self.op("Mul", x, s))
        q = self.op("Clip", rounded, self._float(-128.0), self._float(127.0))
        if self.weights == "int8":
            q = self.op("Cast", self.op("Add", q, self._float(ZERO_POINT)), to=TensorProto.UINT8)
        return q, s

    def _linear(self, name: str, q: str, s: str) -> str:
        matrix = self.package.matrix(name)
        codes = unpack_ternary(matrix.packed, matrix.rows, matrix.columns)  # int8 [out, in]
        if self.weights == "int8":
            stored = self._initializer(name, np.ascontiguousarray(codes.T))
            zero = self._constant("zero", ZERO_POINT, np.array(ZERO_POINT, dtype=np.uint8))
            sums = self.op("Cast", self.op("MatMulInteger", q, stored, zero), to=TensorProto.FLOAT)
        else:
            if matrix.columns > EXACT_COLUMNS_MAX:
                raise ModelError(
                    f"{self.package.path}: {name} has {matrix.columns} columns; sums are exact in float32 up to "
                    f"{EXACT_COLUMNS_MAX}. Take int8 weights"
                )
            sums = self._matmul_2bit(name, q, codes)
        return self.op("Mul", sums, self.op("Div", self._float(matrix.scale), s))

    def _matmul_2bit(self, name: str, q: str, codes: npt.NDArray[np.int8]) -> str:
        rows, columns = codes.shape
        blocks = -(-columns // BLOCK_COLUMNS)
        padded = np.ones((rows, blocks * BLOCK_COLUMNS), dtype=np.uint8)
        padded[:, :columns] = codes + 1
        packed = _four_to_a_byte(padded).reshape(rows, blocks, BLOCK_COLUMNS // 4)
        scales = np.ones((rows, blocks), dtype=np.float32)
        zeros = _four_to_a_byte(np.ones((rows, -(-blocks // 4) * 4), dtype=np.uint8))
        stored = [
            self._initializer(f"{name}.{part}", array)
            for part, array in (("codes", packed), ("scales", scales), ("zeros", zeros))
        ]
        # Accuracy level 1 multiplies in float32; 4 would quantise the activations once more, by block.
        options = {"K": columns, "N": rows, "bits": 2, "block_size": BLOCK_COLUMNS, "accuracy_level": 1}
        return self.op("MatMulNBits", q, *stored, domain=CONTRIB, **options)

    # ---- names, constants ----------------------------------------------------------------------------------------

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def _split(self, x: str, half: int) -> tuple[str, str]:
        name = f"Split_{len(self.nodes)}"
        outputs = [f"{name}.first", f"{name}.second"]
        sizes = self._integers([half, half])
        self.nodes.append(helper.make_node("Split", [x, sizes], outputs, name=name, axis=-1))
        return outputs[0], outputs[1]

    def _length_of(self, x: str, axis: int) -> str:
        return self.op("Shape", x, start=axis, end=axis + 1)

    def _scalar(self, one: str) -> str:
        return self.op("Squeeze", one)

    def _input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def _output(self, name: str, x: str, shape: Sequence[int | str]) -> None:
        self.nodes.append(helper.make_node("Identity", [x], [name], name=f"output_{name}"))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def _initializer(self, name: str, array: npt.NDArray[Any]) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _constant(self, kind: str, key: Any, array: npt.NDArray[Any]) -> str:
        """An initializer that equal constants share."""
        known = self._constants.get((kind, key))
        if known is None:
            known = self._constants[kind, key] = self._initializer(f"{kind}_{len(self._constants)}", array)
        return known

    def _float(self, value: float) -> str:
        return self._constant("float", float(value), np.array(value, dtype=np.float32))

    def _integer(self, value: int) -> str:
        return self._constant("integer", value, np.array(value, dtype=np.int64))

    def _integers(self, values: Sequence[int]) -> str:
        return self._constant("integers", tuple(values), np.array(values, dtype=np.int64))


def _four_to_a_byte(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Two-bit values [rows, 4 k], the first in the lowest bits, as bytes [rows, k]."""
    fours = values.reshape(values.shape[0], -1, 4)
    joined: npt.NDArray[np.uint8] = (fours << np.array([0, 2, 4, 6], dtype=np.uint8)).sum(axis=-1, dtype=np.uint8)
    return joined
