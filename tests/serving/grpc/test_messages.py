"""The gRPC messages, compiled from the published definition of the protocol."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import copy, copytree
from zipfile import ZipFile

import pytest
import tritonclient.grpc
from google.protobuf import descriptor_pool

from registry_tools.serving.grpc.messages import message_classes
from tests.support.constants import ROOT


def test_the_messages_are_those_of_a_stock_client_in_the_same_process() -> None:
    theirs = tritonclient.grpc.service_pb2.ModelInferRequest(model_name="iris", id="seven")
    theirs.inputs.add(name="rows", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    theirs.parameters["priority"].int64_param = 3
    ours = message_classes()["ModelInfer"][0].FromString(theirs.SerializeToString())
    assert ours.DESCRIPTOR.full_name == theirs.DESCRIPTOR.full_name
    assert ours.DESCRIPTOR.file.pool is not descriptor_pool.Default()
    assert (ours.model_name, ours.id, list(ours.inputs[0].shape)) == ("iris", "seven", [1, 2])
    assert ours.parameters["priority"].int64_param == 3


@pytest.mark.slow
def test_the_descriptor_set_is_compiled_from_the_definition(tmp_path: Path) -> None:
    folder = ROOT / "registry_tools" / "serving" / "grpc"
    copy(folder / "open_inference_grpc.proto", tmp_path)
    made = f"{sys.prefix}/.test"  # the packages of the tests are installed
    subprocess.run(
        ["make", f"--old-file={made}", f"VENV={sys.prefix}", f"GRPC={tmp_path}", "proto"],
        cwd=ROOT,
        check=True,
        timeout=300,
    )
    compiled = "open_inference_grpc.binpb"
    assert (tmp_path / compiled).read_bytes() == (folder / compiled).read_bytes()


@pytest.mark.slow
def test_the_wheel_has_the_descriptor_set(tmp_path: Path) -> None:
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path / "wheels")
    source = tmp_path / "source"
    for name in ("registry_tools", "pipeline"):
        copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md"):
        copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, source], check=True, timeout=300)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    files = ZipFile(wheel).namelist()
    assert "registry_tools/serving/grpc/open_inference_grpc.binpb" in files
    assert "registry_tools/serving/grpc/open_inference_grpc.proto" in files
