"""What each LMWP_OPS_BUILD means where tools are missing, and which sources are compiled how."""

import dataclasses
from pathlib import Path

import pytest

from build_tools.cuda import Toolkit
from build_tools.errors import BuildError, UnavailableError
from build_tools.libraries import write_ninja
from build_tools.mode import CudaTools, HostTools, Plan, instruction_sets, resolve

HOST = HostTools("/usr/bin/g++", "g++ 12", "2.13.0", None, Path("/torch"))
CUDA = CudaTools(Toolkit(Path("/cuda"), (13, 0), Path("/cuda/lib64/libcudart.so")), ("9.0",))


def plan_for(requested: str, *, host: bool, cuda: bool) -> Plan:
    def probe_host() -> HostTools:
        if not host:
            raise UnavailableError("no C++ compiler")
        return HOST

    def probe_cuda(_: HostTools) -> CudaTools:
        if not cuda:
            raise UnavailableError("no toolkit")
        return CUDA

    return resolve(requested, probe_host, probe_cuda)


@pytest.mark.parametrize(
    ("requested", "host", "cuda", "mode", "notices"),
    [
        ("auto", True, True, "cuda", []),
        ("auto", True, False, "cpu", ["no CUDA library, CPU only: no toolkit"]),
        ("auto", False, True, "none", ["no compiled library, plain torch only: no C++ compiler"]),
        ("cuda", True, True, "cuda", []),
        ("cpu", True, True, "cpu", []),
        ("none", False, False, "none", []),
    ],
)
def test_mode(requested: str, host: bool, cuda: bool, mode: str, notices: list[str]) -> None:
    plan = plan_for(requested, host=host, cuda=cuda)
    assert (plan.mode, list(plan.notices)) == (mode, notices)
    assert (plan.host is not None) == (mode != "none")
    assert (plan.cuda is not None) == (mode == "cuda")


@pytest.mark.parametrize(
    ("requested", "host", "cuda", "reason"),
    [
        ("cuda", True, False, "LMWP_OPS_BUILD=cuda cannot be met: no toolkit"),
        ("cuda", False, True, "LMWP_OPS_BUILD=cuda cannot be met: no C.. compiler"),
        ("cpu", False, True, "LMWP_OPS_BUILD=cpu cannot be met: no C.. compiler"),
        ("gpu", True, True, "expected one of auto, cuda, cpu, none, got 'gpu'"),
    ],
)
def test_a_named_mode_that_cannot_be_met(
    requested: str, host: bool, cuda: bool, reason: str
) -> None:
    with pytest.raises(BuildError, match=reason) as caught:
        plan_for(requested, host=host, cuda=cuda)
    assert "\n" not in str(caught.value)


def test_auto_survives_sources_that_do_not_compile() -> None:
    cpu = plan_for("auto", host=True, cuda=True).after_failure()
    none = cpu.after_failure()
    assert [(p.mode, p.cuda) for p in (cpu, none)] == [("cpu", None), ("none", None)]
    assert len(none.notices) == 2


@pytest.mark.parametrize("requested", ["cuda", "cpu"])
def test_a_named_mode_does_not(requested: str) -> None:
    with pytest.raises(BuildError, match="compiling failed"):
        plan_for(requested, host=True, cuda=True).after_failure()


def test_ninja_file(tmp_path: Path) -> None:
    for name in ("cpu/op.cpp", "cpu/bindings.cpp", "common/caps.cpp", "cuda/op.cu", "host/h.cpp"):
        (tmp_path / "csrc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "csrc" / name).touch()
    plan = plan_for("auto", host=True, cuda=True)
    edges = write_ninja(plan, tmp_path, tmp_path / "build").read_text().split("\n\n")[1:]
    outputs = {edge.split(":")[0].split("/")[-1]: edge for edge in edges}
    for isa in instruction_sets():
        kernel = outputs[f"cpu_op.{isa}.o"]
        assert f"-DLMWP_ISA={isa}" in kernel
        assert "torch" not in kernel
        assert f"cpu_op.{isa}.o" in outputs["_C.so"]
    assert "-march" not in outputs["cpu_bindings.o"]
    for source in ("cpu_bindings.o", "cuda_op.o"):
        assert "-DTORCH_TARGET_VERSION=0x020b000000000000" in outputs[source]
    assert "-gencode=arch=compute_90,code=sm_90" in outputs["cuda_op.o"]
    assert "cuda" not in "".join(
        write_ninja(dataclasses.replace(plan, cuda=None), tmp_path, tmp_path / "b")
        .read_text()
        .split("\n\n")[1:]
    )


def test_other_processors_get_one_plain_build() -> None:
    assert instruction_sets("aarch64") == {"generic": []}
    assert list(instruction_sets("x86_64")) == ["sse42", "avx2", "avx512"]
