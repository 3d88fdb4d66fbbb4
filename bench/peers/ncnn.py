"""ncnn on the CPU."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmwp_bench.peers.require import require
from lmwp_bench.peers.task import NetworkTask
from lmwp_bench.variant import Compute, Unavailable


def ncnn(task: NetworkTask) -> Compute:
    """The traced network, converted by pnnx and run in float32."""
    runtime, converter = require("ncnn"), require("pnnx")
    if task.dtype != torch.float32:
        raise Unavailable(f"run in float32 only; asked for {task.dtype}")
    if task.images[0].shape[0] != 1:
        raise Unavailable(f"takes one image at a time; asked for {task.images[0].shape[0]}")
    stem = _convert(task, converter.EXEC_PATH)
    net = runtime.Net()
    net.opt.num_threads = task.threads
    net.opt.use_vulkan_compute = False
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    if net.load_param(f"{stem}.param") or net.load_model(f"{stem}.bin"):
        raise Unavailable("ncnn does not load what pnnx made of the network")
    images = [runtime.Mat(image[0].numpy()) for image in task.images]

    def compute(i: int) -> list[Tensor]:
        extractor = net.create_extractor()
        extractor.input("in0", images[i])
        status, output = extractor.extract("out0")
        if status:
            raise RuntimeError(f"ncnn: extract returned {status}")
        return [torch.from_numpy(np.array(output)[None])]

    return compute


def _convert(task: NetworkTask, program: str) -> Path:
    """Path of the ncnn network without its two endings."""
    task.traced.save(task.folder / "network.pt")
    shape = str(list(task.images[0].shape)).replace(" ", "")
    command = [program, "network.pt", f"inputshape={shape}", "fp16=0"]
    done = subprocess.run(command, cwd=task.folder, capture_output=True, text=True, check=False)
    stem = task.folder / "network.ncnn"
    if done.returncode or not stem.with_suffix(".ncnn.param").exists():
        raise Unavailable(f"pnnx could not convert the network (exit status {done.returncode})")
    return stem
