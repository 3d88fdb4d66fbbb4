"""The ways to run a network, by the name they have in tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lmwp_bench.peers import pytorch
from lmwp_bench.peers.ncnn import ncnn
from lmwp_bench.peers.onnxruntime import onnxruntime
from lmwp_bench.peers.openvino import openvino
from lmwp_bench.peers.task import NetworkTask
from lmwp_bench.peers.tensorrt import tensorrt
from lmwp_bench.variant import Compute, Variant


@dataclass(frozen=True)
class NetworkPeer:
    """A way to run a network; one of `ours` needs a network built on lmwp_ops."""

    run: Callable[[NetworkTask], Compute]
    devices: tuple[str, ...]
    foreign: bool = False
    compiled: bool = False
    ours: bool = False


NETWORK_PEERS = {
    "eager": NetworkPeer(pytorch.eager, ("cpu", "cuda")),
    "eager-channels-last": NetworkPeer(pytorch.channels_last, ("cpu", "cuda")),
    "compile": NetworkPeer(pytorch.compiled, ("cpu", "cuda"), compiled=True),
    "onnxruntime": NetworkPeer(onnxruntime, ("cpu",), foreign=True),
    "openvino": NetworkPeer(openvino, ("cpu",), foreign=True),
    "ncnn": NetworkPeer(ncnn, ("cpu",), foreign=True),
    "tensorrt": NetworkPeer(tensorrt, ("cuda",), foreign=True),
    "lmwp-modules": NetworkPeer(pytorch.with_ops, ("cpu", "cuda"), ours=True),
    "lmwp-fused": NetworkPeer(pytorch.fused, ("cpu", "cuda"), ours=True),
}


def peers_for(device_type: str, ours: bool) -> list[str]:
    """Names of the ways to run a network on such a device; `ours` for one on lmwp_ops."""
    return [
        name
        for name, peer in NETWORK_PEERS.items()
        if device_type in peer.devices and (ours or not peer.ours)
    ]


def network_variants(task: NetworkTask, names: list[str]) -> list[Variant]:
    """The variants of `names` for `task`."""
    peers = {name: NETWORK_PEERS[name] for name in names}
    return [
        Variant(name, partial(peer.run, task), foreign=peer.foreign, compiled=peer.compiled)
        for name, peer in peers.items()
    ]
