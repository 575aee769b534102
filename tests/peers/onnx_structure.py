"""Compares the graphs of two ONNX files: same operators, attributes, connections and numbers, whatever the names.

usage: python onnx_structure.py A.onnx B.onnx [--tolerance T]

Both files are brought to one form first: Identity nodes and dead code removed, Constant nodes made initializers, everything that depends on no
input evaluated (but never QuantizeLinear and DequantizeLinear), attributes completed with the schema's
defaults. Then the graphs are walked from their outputs towards their inputs in step: each node must meet one node of the other file and
always the same one, so shared values must be shared in both. Initializers must agree in type, shape and value (floats within T relative to the
tensor's largest value, default 1e-6; scales and integers exactly). Prints what differs, a summary, and exits with 1 on any difference.
Needs onnx and onnxruntime.
"""
import argparse
import collections
import sys
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper, shape_inference

QDQ = ("QuantizeLinear", "DequantizeLinear")


def evaluate(nodes, initializers, outputs, opset):
    """Runs a part of a graph that has no inputs."""
    graph = helper.make_graph(nodes, "constants", [], [onnx.ValueInfoProto(name=o) for o in outputs],
                              [numpy_helper.from_array(v, k) for k, v in initializers.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    inferred = shape_inference.infer_shapes(model)
    types = {v.name: v for v in list(inferred.graph.value_info) + list(inferred.graph.output)}
    del model.graph.output[:]
    model.graph.output.extend(types[o] for o in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(outputs, session.run(outputs, {})))


class Graph:
    def __init__(self, path):
        model = onnx.load(path)
        self.path, graph = path, model.graph
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.inputs = [i.name for i in graph.input if i.name not in self.constants]
        self.types = [self.type_of(v) for v in list(graph.input) + list(graph.output) if v.name not in self.constants]
        alias, nodes, folded = {}, [], []
        resolve = lambda name: alias.get(name, name)
        for node in graph.node:
            for i, name in enumerate(node.input):
                node.input[i] = resolve(name)
            if node.op_type == "Identity":
                alias[node.output[0]] = node.input[0]
            elif node.op_type == "Constant":
                value = helper.get_attribute_value(node.attribute[0])
                self.constants[node.output[0]] = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
            elif node.op_type not in QDQ and all(not name or name in self.constants for name in node.input):
                folded.append(node)
                self.constants.update({o: None for o in node.output})
            else:
                nodes.append(node)
        self.outputs = [resolve(o.name) for o in graph.output]
        if folded:
            known = {n: self.constants[n] for node in folded for n in node.input if n and self.constants[n] is not None}
            self.constants.update(evaluate(folded, known, [o for node in folded for o in node.output], self.opset))
        self.producer = {o: (node, i) for node in nodes for i, o in enumerate(node.output)}
        self.nodes = self.reachable(nodes)

    @staticmethod
    def type_of(value):
        tensor = value.type.tensor_type
        return tensor.elem_type, [d.dim_value for d in tensor.shape.dim]

    def reachable(self, nodes):
        seen, open_values = set(), list(self.outputs)
        while open_values:
            node = self.producer.get(open_values.pop(), (None, 0))[0]
            if node is not None and id(node) not in seen:
                seen.add(id(node))
                open_values.extend(node.input)
        return [n for n in nodes if id(n) in seen]

    def attributes(self, node):
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        values = {}
        for name, attribute in schema.attributes.items():
            if attribute.default_value.name:
                values[name] = helper.get_attribute_value(attribute.default_value)
        for attribute in node.attribute:
            values[attribute.name] = helper.get_attribute_value(attribute)
        if node.op_type in QDQ and self.constants[node.input[1]].ndim == 0:
            values.pop("axis", None)
        return {k: np.float32(v) if isinstance(v, float) else v for k, v in values.items()}


def inputs_of(node):
    names = list(node.input)
    while names and not names[-1]:
        names.pop()
    return names


class Comparison:
    def __init__(self, a, b, tolerance):
        self.a, self.b, self.tolerance = a, b, tolerance
        self.a_to_b, self.b_to_a, self.problems, self.exact, self.close, self.worst = {}, {}, [], 0, 0, 0.0
        self.compared = set()

    def problem(self, *text):
        self.problems.append(" ".join(str(t) for t in text))

    def constant(self, x, y, where):
        if (x, y) in self.compared:
            return
        self.compared.add((x, y))
        u, v = self.a.constants[x], self.b.constants[y]
        if u.dtype != v.dtype or u.shape != v.shape:
            return self.problem(where, "constant", x, u.dtype, u.shape, "against", y, v.dtype, v.shape)
        if np.array_equal(u, v):
            self.exact += 1
            return
        scale = np.abs(u).max() if u.size else 0
        difference = np.abs(u.astype(np.float64) - v.astype(np.float64)).max() / (scale or 1)
        self.worst = max(self.worst, difference)
        self.close += 1
        if u.dtype != np.float32 or u.ndim == 0 or not difference <= self.tolerance:
            self.problem(where, "constants", x, y, "differ by", difference, "of the largest value")

    def values(self, pairs):
        """Pairs of value names that must mean the same; walks towards the inputs."""
        open_pairs = [(x, y, "output") for x, y in pairs]
        while open_pairs:
            x, y, where = open_pairs.pop()
            kinds = [("constant" if n in g.constants else "input" if n in g.inputs else "node" if n in g.producer else "missing" if n else "none")
                     for g, n in ((self.a, x), (self.b, y))]
            if kinds[0] != kinds[1]:
                self.problem(where, kinds[0], x, "against", kinds[1], y)
            elif kinds[0] == "constant":
                self.constant(x, y, where)
            elif kinds[0] == "input":
                if self.a.inputs.index(x) != self.b.inputs.index(y):
                    self.problem(where, "input", x, "against", y)
            elif kinds[0] == "node":
                (n, i), (m, k) = self.a.producer[x], self.b.producer[y]
                if i != k:
                    self.problem(where, "result", i, "against", k)
                known, back = self.a_to_b.get(id(n)), self.b_to_a.get(id(m))
                if known is not None or back is not None:
                    if known is not m or back is not n:
                        self.problem(where, "reads", n.name, "against", m.name, "which stand for other nodes elsewhere")
                    continue
                self.a_to_b[id(n)], self.b_to_a[id(m)] = m, n
                open_pairs.extend(self.node(n, m))

    def node(self, n, m):
        where = f"{n.op_type} {n.name} | {m.name}:"
        if n.op_type != m.op_type or n.domain != m.domain:
            self.problem(where, n.op_type, "against", m.op_type)
            return []
        p, q = self.a.attributes(n), self.b.attributes(m)
        for name in sorted(set(p) | set(q)):
            if p.get(name) != q.get(name):
                self.problem(where, "attribute", name, p.get(name), "against", q.get(name))
        x, y = inputs_of(n), inputs_of(m)
        if len(x) != len(y):
            self.problem(where, len(x), "inputs against", len(y))
            return []
        return [(u, v, where) for u, v in zip(x, y)]


parser = argparse.ArgumentParser()
parser.add_argument("a")
parser.add_argument("b")
parser.add_argument("--tolerance", type=float, default=1e-6)
args = parser.parse_args()
a, b = Graph(args.a), Graph(args.b)
comparison = Comparison(a, b, args.tolerance)
if a.types != b.types:
    comparison.problem("inputs and outputs", a.types, "against", b.types)
comparison.values(zip(a.outputs, b.outputs))
counts = [collections.Counter(n.op_type for n in g.nodes) for g in (a, b)]
for op in sorted(set(counts[0]) | set(counts[1])):
    if counts[0][op] != counts[1][op]:
        comparison.problem(op, "nodes:", counts[0][op], "against", counts[1][op])
for text in comparison.problems[:50]:
    print("DIFFERENT", text)
print(f"{len(a.nodes)} and {len(b.nodes)} nodes, {len(comparison.a_to_b)} matched; {comparison.exact} constants equal, {comparison.close} close "
      f"(largest relative difference {comparison.worst:.3g}); {len(comparison.problems)} differences")
print(dict(sorted(counts[0].items())))
sys.exit(1 if comparison.problems else 0)
