"""Constants of the cost model that no data sheet gives; ``flows.experiment.calibrate`` fits them to measured steps."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Calibration:
    """Efficiencies are fractions of a data sheet's peak; ``calibration.json`` beside this file says where each is from."""

    gemm_efficiency: float
    """Of a matrix product whose tiles fill the accelerator, against the highest rate that was measured on it."""
    fill_depth: float
    """Length of the summed dimension whose time a tile takes on top: its pipeline fills and its result is written."""
    align_32: float
    """Share of that rate when a matrix's rows are multiples of 32 values but not of 64, a cache line."""
    align_16: float
    align_8: float
    odd_heads: float
    """Share of what is left of it in products of attention whose heads are no multiple of 8 wide."""
    memory_efficiency: float
    kernel_seconds: float
    """Time that a kernel takes however small."""
    forward_launch_seconds: float
    """Time of the host to launch a layer's forward pass: it is no faster, however small."""
    backward_launch_seconds: float
    expert_launch_seconds: float
    """What launching a layer's passes takes longer if it has experts whose operands are cast, expert by expert."""
    collective_launch_seconds: float
    """What each other member of tensor parallelism adds to the two: their hosts wait for each other."""
    loss_accesses: float
    """Reads and writes of an fp32 logit from the output layer to its gradient."""
    optimiser_seconds: float
    """What an optimiser step takes, however small."""
    optimiser_bytes: float
    """Read and written per parameter: unscaling, norm and clipping of gradients, Adam, the cast back."""
    island_efficiency: float
    """Payload rate of a large all-reduce behind a fast switch."""
    collective_seconds: float
    """What a collective takes, however small, and what each member adds."""
    member_seconds: float
    chunk_root_seconds: float
    """A transfer of t seconds takes this times sqrt(t) more: it is cut into chunks of a size that balances the two."""
    transfer_seconds: float
    """What a transfer between stages takes, however small."""
    exchange_seconds: float
    """What an exchange of tokens with experts takes besides: the host waits to learn how many come."""
    graph_exchange_seconds: float
    """The same where the host does not wait."""
    network_efficiency: float
    """Payload rate between islands."""
    exchange_efficiency: float
    """Payload rate between islands of an exchange of tokens."""
    sharded_slowdown: float
    """Of passes whose weights are gathered (ZeRO 3): the gathering kernels take multiprocessors, and nothing is fused."""
    deepspeed_accesses: float
    """How often kernels that memory binds read and write in Megatron-DeepSpeed of 2022 for once in Megatron-LM's."""
    deepspeed_sum_bytes: float
    """Read and written there per weight and micro-batch to sum gradients: no kernel of products does it on the way."""
    deepspeed_reduced_share: float
    """Of a NIC's rate that its sums of gradients over replicas reach, bucket by bucket, copied before and after."""
    reserved_gib: float
    """What a run in Megatron-DeepSpeed of 2022 takes beside the classes of ``memory``: buckets, buffers, fragments."""
    context_gib: float
    """What other runs take besides: CUDA's context and buffers of NCCL's groups."""


@cache
def calibration() -> Calibration:
    """The constants that come with the package."""
    content = json.loads(files("lightfabric.placement.cost").joinpath("calibration.json").read_text())
    return Calibration(**content["constants"])
