"""Chakra traces as others write them: the examples of ASTRA-sim, PyTorch's converter, STG; encoded here byte by byte.

Sources: examples/workload of astra-sim/astra-sim, src/converter of mlcommons/chakra, astra-sim/symbolic_tensor_graph.
"""

import json

import pytest

from lightfabric.flows.command import replay
from lightfabric.flows.report import InputError

METADATA, MEM_LOAD, COMP, SEND, RECV, COLL = 1, 2, 4, 5, 6, 7
ALL_REDUCE, ALL_GATHER, ALL_TO_ALL, REDUCE_SCATTER = 0, 2, 6, 7
MB, BYTES_PER_US = 1 << 20, 12_500
LATENCY_US = 2


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def scalar(number, value):
    return varint(number << 3) + varint(value)


def nested(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


INT32, INT64, UINT32, UINT64, BOOL, BOOLS, STRING = 7, 9, 11, 13, 27, 28, 29


def attribute(name, slot, value):
    content = nested(1, name.encode())
    if slot == STRING:
        return nested(10, content + nested(slot, value.encode()))
    if slot == BOOLS:
        return nested(10, content + nested(slot, nested(1, bytes(value))))
    return nested(10, content + scalar(slot, int(value)))


def node(identity, name, kind, *attributes, waits=(), callers=(), micros=0, inputs=None):
    """As proto3 writes it: packed numbers, and no zeros."""
    content = (scalar(1, identity) if identity else b"") + nested(2, name.encode()) + scalar(3, kind)
    content += nested(4, b"".join(map(varint, callers))) if callers else b""
    content += nested(5, b"".join(map(varint, waits))) if waits else b""
    content += scalar(7, micros) if micros else b""
    content += nested(8, nested(1, inputs.encode())) if inputs else b""
    return content + b"".join(attributes)


def write(path, metadata, nodes):
    path.write_bytes(b"".join(varint(len(content)) + content for content in (metadata, *nodes)))


def milliseconds(path, **given):
    return replay.replay(path, 100.0, **given)["iteration_ms"]


@pytest.mark.parametrize("npus", [4, 8, 16])
@pytest.mark.parametrize(
    ("name", "kind", "steps", "parts"),
    [("all_reduce", 0, 2, 2), ("all_gather", 2, 1, 1), ("reduce_scatter", 7, 1, 1), ("all_to_all", 6, 0, 1)],
)
def test_microbenchmarks_of_astra_sim_replay(tmp_path, name, kind, steps, parts, npus):
    """One node per rank, its id counted over all ranks, its group not said."""
    for npu in range(npus):
        coll = node(
            npu, f"{name}_{npus}npus_1MB", COLL, attribute("is_cpu_op", BOOL, 0), attribute("comm_type", INT64, kind),
            attribute("comm_size", INT64, MB),
        )  # fmt: skip
        write(tmp_path / f"{name}.{npu}.et", nested(1, b"0.0.4"), [coll])
    latency_us = LATENCY_US * (steps * (npus - 1) or 1)
    expected = latency_us + parts * (npus - 1) / npus * MB / BYTES_PER_US
    assert milliseconds(tmp_path) == pytest.approx(expected / 1000, rel=1e-9)


def ring_program(rank, npus, chunk):
    """The steps of a ring all-reduce of MSCCL: 2 (n - 1) sends and receives, a sum after the first n - 1 receives."""
    size = attribute("comm_type", INT64, ALL_REDUCE) + attribute("comm_size", INT64, chunk)
    tag, last, nodes = attribute("comm_tag", INT32, 1), [], []
    for step in range(2 * (npus - 1)):
        nodes.append(
            node(
                len(nodes),
                "COMM_SEND_NODE_tb0",
                SEND,
                size,
                attribute("comm_dst", INT32, (rank + 1) % npus),
                tag,
                waits=last,
            )
        )
        last = [len(nodes) - 1]
        nodes.append(
            node(
                len(nodes),
                "COMM_RECV_NODE_tb0",
                RECV,
                size,
                attribute("comm_src", INT32, (rank - 1) % npus),
                tag,
                waits=last,
            )
        )
        last = [len(nodes) - 1]
        if step < npus - 1:
            nodes.append(node(len(nodes), "COMP_NODE_tb0", COMP, waits=last, micros=7))
            last = [len(nodes) - 1]
    return nodes


@pytest.mark.parametrize("schema", ["of 2025", "with its input file", "of 2023"])
def test_a_custom_collective_of_astra_sim_replays(tmp_path, schema):
    """Its metadata has the whole XML that it was made of; in the first schema attributes are where the version is now."""
    text = b"<algo>" + b" " * (2 << 20) + b"</algo>"
    # Minus one as a number has bytes that are no text.
    number = varint(INT64 << 3) + b"\xff" * 9 + b"\x01"
    metadata = {
        "of 2025": nested(1, b"0.0.4"), "with its input file": nested(2, nested(1, b"input_file") + nested(29, text)),
        "of 2023": nested(1, nested(1, b"start_ts") + number),
    }  # fmt: skip
    for rank in range(8):
        write(tmp_path / f"custom_allreduce.{rank}.et", metadata[schema], ring_program(rank, 8, MB // 8))
    expected = 14 * (LATENCY_US + MB / 8 / BYTES_PER_US) + 7 * 7
    assert milliseconds(tmp_path) == pytest.approx(expected / 1000, rel=1e-9)


def symbolic(rank):
    """A pipeline of two stages with two ranks of tensor parallelism in each, as STG writes it."""
    group = "1" if rank < 2 else "2"
    nodes = [
        node(
            3, "mha_COMP", COMP, attribute("num_ops", UINT64, 10**9), attribute("tensor_size", UINT64, 10**6),
            waits=[1] if rank >= 2 else [],
        ),
        node(
            4, "mha_X1COMM", COLL, attribute("comm_size", UINT64, MB), attribute("comm_type", INT64, ALL_REDUCE),
            attribute("involved_dim", BOOLS, [1, 1, 1]), attribute("pg_name", STRING, group), waits=[3],
        ),
    ]  # fmt: skip
    ends = [attribute("comm_size", UINT64, MB), attribute("comm_tag", UINT32, 9)]
    if rank < 2:
        return [*nodes, node(5, "Y_SEND", SEND, *ends, attribute("comm_dst", UINT32, rank + 2), waits=[4])]
    return [node(1, "Y_RECV", RECV, *ends, attribute("comm_src", UINT32, rank - 2)), *nodes]


@pytest.mark.parametrize("groups", ["comm_group.json", "comm_groups.json", "workload.json"])
@pytest.mark.parametrize("ending", ["et", "eg"])
def test_a_graph_of_stg_needs_an_accelerator_for_its_work(tmp_path, groups, ending):
    for rank in range(4):
        name = nested(1, b"schema") + nested(29, b"symbolic_tensor_network")
        write(tmp_path / f"workload.{rank}.{ending}", nested(1, name), symbolic(rank))
    (tmp_path / groups).write_text(json.dumps({"1": [0, 1], "2": [2, 3]}))
    with pytest.raises(
        InputError, match=r"node 0.duration_micros must be given, or --accelerator for its num_ops and tensor"
    ):
        milliseconds(tmp_path)
    work_us = max(10**9 / 989.4e6, 10**6 / 3350e3)
    expected = 2 * work_us + 2 * (2 * LATENCY_US + MB / BYTES_PER_US) + LATENCY_US + MB / BYTES_PER_US
    found = milliseconds(tmp_path / f"workload.0.{ending}", accelerator="h100")
    assert found == pytest.approx(expected / 1000, rel=1e-6)


def test_a_collective_over_some_dimensions_needs_the_name_of_its_group(tmp_path):
    size = attribute("comm_type", INT64, 0), attribute("comm_size", INT64, MB)
    for rank in range(2):
        write(tmp_path / f"job.{rank}.et", b"", [node(1, "c", COLL, *size, attribute("involved_dim", BOOLS, [1, 0]))])
    with pytest.raises(InputError) as error:
        milliseconds(tmp_path)
    says = "rank 0: node 0.involved_dim must be true in all dimensions where no pg_name tells the group, not false in some"
    assert str(error.value).endswith(says)


PROFILED = [
    attribute("rf_id", INT64, 5), attribute("fw_parent", INT64, 0), attribute("seq_id", INT64, 0),
    attribute("tid", INT64, 1), attribute("op_schema", STRING, ""),
]  # fmt: skip
INIT = "## process_group:init ##"


def groups_as_pytorch_has_them(*groups):
    """A list of inputs that was printed, of which the first is the JSON of all groups."""
    listed = [
        {"pg_name": name, "pg_desc": "default_pg", "backend_config": "cuda:nccl", "ranks": ranks, "group_size": 2}
        for name, ranks in groups
    ]
    return str([json.dumps(listed)])


def profiled(rank, init):
    """A step of two kernels and an all-reduce: 100 us on the CPU beside the kernels that it launches."""
    cpu, gpu = ([*PROFILED, attribute("is_cpu_op", BOOL, on)] for on in (True, False))
    group = attribute("pg_name", STRING, str(1 + rank // 2))
    reduces = [attribute("comm_type", INT64, 0), attribute("comm_size", INT64, MB), group]
    kernel = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
    return [
        node(2, "[pytorch|profiler|execution_trace|thread]", COMP, *cpu),
        node(3, INIT, METADATA, *cpu, callers=[2], waits=[2], inputs=init),
        # The converter has left out the caller 1, and the kernel 6 ends while the CPU works on.
        node(4, "aten::mm", COMP, *cpu, callers=[1], waits=[3], micros=20),
        node(6, "gemm", COMP, *gpu, callers=[4], waits=[4], micros=50),
        node(7, "nccl:all_reduce", COMP, *cpu, callers=[2], waits=[4], micros=80),
        node(8, kernel, COLL, *gpu, *reduces, callers=[7], waits=[7, 6], micros=11),
    ]


def test_a_trace_of_pytorch_has_its_process_groups_inside(tmp_path):
    for rank in range(4):
        mine = str(1 + rank // 2), [rank // 2 * 2, rank // 2 * 2 + 1]
        write(tmp_path / f"chakra.{rank}.et", b"", profiled(rank, groups_as_pytorch_has_them(("0", []), mine)))
    expected = 20 + 80 + 2 * LATENCY_US + MB / BYTES_PER_US
    result = replay.replay(tmp_path, 100.0)
    assert result["iteration_ms"] == pytest.approx(expected / 1000, rel=1e-9)
    assert result["devices"] == 4


@pytest.mark.parametrize("ranks", [[0, 1], [0, 1, 2]])
def test_the_other_end_of_a_pipeline_of_pytorch_is_that_of_its_group_of_two(tmp_path, ranks):
    """The converter writes the size and the group of a send and a receive, and no more."""
    kernel = "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)"
    told = [attribute("is_cpu_op", BOOL, False), attribute("comm_size", INT64, MB), attribute("pg_name", STRING, "5")]
    init = node(1, INIT, METADATA, attribute("is_cpu_op", BOOL, True), inputs=groups_as_pytorch_has_them(("5", ranks)))
    for rank, kinds in enumerate([(SEND, RECV), (RECV, SEND), ()]):
        nodes = [node(2 + at, kernel, kind, *told, waits=[1 + at] if at else []) for at, kind in enumerate(kinds)]
        write(tmp_path / f"job.{rank}.et", b"", [init, *nodes])
    if len(ranks) == 2:
        assert milliseconds(tmp_path) == pytest.approx(2 * (LATENCY_US + MB / BYTES_PER_US) / 1000, rel=1e-9)
        return
    with pytest.raises(InputError, match=r"rank 0: node 1.comm_dst must be from 0 to 1073741824, not left out$"):
        milliseconds(tmp_path)


def test_a_data_dependency_that_is_left_out_is_no_caller(tmp_path):
    write(tmp_path / "job.0.et", b"", [node(5, "a", COMP, waits=[1], callers=[1], micros=1)])
    with pytest.raises(InputError, match=r"rank 0: node 0.data_deps must be ids of nodes of rank 0, not 1$"):
        milliseconds(tmp_path)


@pytest.mark.parametrize(
    ("init", "says"),
    [
        ("['none']", "rank 0: node 1.inputs must be a list of process groups in JSON, not "),
        ("[]", "rank 2: node 5.pg_name must be a communicator group, not '2'"),
        ("['[]']", "rank 2: node 5.pg_name must be a communicator group, not '2'"),
        ("['[{" + "[" * 100_000 + "}]']", "rank 0: node 1.inputs must be a list of process groups in JSON, not "),
        ("['[{\"pg_name\": \"1\"}]']", "rank 0: node 1.inputs must be process groups with pg_name and a list of ranks"),
        ("['[{\"pg_name\": \"1\", \"ranks\": [true]}]']", "must be process groups with pg_name and a list of ranks"),
        (groups_as_pytorch_has_them(("1", [1, 0])), "inputs must have the ranks of group '1' as elsewhere, not [1, 0]"),
        (groups_as_pytorch_has_them(("7", [0, 1])), "rank 2: node 5.pg_name must be a communicator group, not '2'"),
    ],
)  # fmt: skip
def test_process_groups_that_are_wrong_are_one_line(tmp_path, init, says):
    for rank in range(4):
        write(tmp_path / f"chakra.{rank}.et", b"", profiled(rank, init))
    (tmp_path / "comm_groups.json").write_text('{"1": [0, 1]}')
    with pytest.raises(InputError) as error:
        milliseconds(tmp_path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("told", [None, {"1": [0, 1]}])
def test_group_0_is_of_all_ranks_if_nothing_else_is_said_of_it(tmp_path, told):
    for rank in range(4):
        reduces = [attribute("comm_type", INT64, 0), attribute("comm_size", INT64, MB), attribute("pg_name", STRING, "0")]
        write(tmp_path / f"job.{rank}.et", b"", [node(1, "c", COLL, *reduces)])
    if told:
        (tmp_path / "comm_groups.json").write_text(json.dumps(told))
    assert milliseconds(tmp_path) == pytest.approx((6 * LATENCY_US + 1.5 * MB / BYTES_PER_US) / 1000, rel=1e-9)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "rank 0: metadata must come first, not the end of the stream"), (b"\x00", None),
        (b"\x00" * 3, "rank 0: node 1.id must be one that no other has, not 0"),
        (b"\xff" * 40, "rank 0: length must be a varint below 2^35 inside 40 bytes, not at byte 5"),
        (b"\x00\x80", "rank 0: length must be a varint below 2^35 inside 2 bytes, not at byte 2"),
        (b"\x00\xff\xff\xff\xff\x0f", "rank 0: length must be at most the 0 bytes that follow, not 4294967295"),
        (b"\x00\x02\x08", "rank 0: length must be at most the 1 bytes that follow, not 2"),
        (b"\x00\x03\x08\xff\xff", "rank 0: node 0 must be a protobuf Node, not something else"),
    ],
)  # fmt: skip
def test_a_stream_that_is_cut_or_huge_is_one_line(tmp_path, content, says):
    (tmp_path / "job.0.et").write_bytes(content)
    if says is None:
        assert milliseconds(tmp_path) == 0
        return
    with pytest.raises(InputError) as error:
        milliseconds(tmp_path)
    assert says in str(error.value)
