"""Send a request with KServe's own clients and print the outputs; runs in an environment with `kserve`.

Usage: `python kserve_client.py HTTP_PORT GRPC_PORT MODEL < inputs.json`. The inputs are a list of
`{"name", "datatype", "shape", "data"}`. It prints a JSON object with the results of each call, for both
transports.
"""

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

NUMPY = {"FP64": np.float64, "FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_, "BYTES": np.object_}


def request(model: str, inputs: list[dict[str, Any]], binary: bool, outputs: list[str]) -> InferRequest:
    """Return a request with binary tensors or with JSON values."""
    tensors = []
    for each in inputs:
        tensor = InferInput(each["name"], each["shape"], each["datatype"])
        values = np.array(each["data"], NUMPY[each["datatype"]]).reshape(each["shape"])
        tensor.set_data_from_numpy(values, binary_data=binary)
        tensors.append(tensor)
    return InferRequest(
        model_name=model,
        request_id="seven",
        infer_inputs=tensors,
        parameters={"binary_data_output": binary},
        request_outputs=[RequestedOutput(name) for name in outputs],
    )


def plain(response: Any) -> dict[str, Any]:
    """Return the outputs of a response as plain values."""
    outputs = {}
    for each in response.outputs:
        values = each.as_numpy()
        texts = [v.decode() if isinstance(v, bytes) else v for v in values.ravel().tolist()]
        outputs[each.name] = {"datatype": each.datatype, "shape": list(values.shape), "data": texts}
    return {"id": response.id, "version": response.model_version, "outputs": outputs}


async def over_http(port: int, model: str, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Call every method of the HTTP client."""
    client, base = InferenceRESTClient(RESTConfig(protocol="v2")), f"http://127.0.0.1:{port}"
    found: dict[str, Any] = {
        "live": await client.is_server_live(base),
        "ready": await client.is_server_ready(base),
        "model_ready": await client.is_model_ready(base, model),
    }
    for name, binary in (("values", False), ("bytes", True)):
        response = await client.infer(base, request(model, inputs, binary, []), model_name=model)
        found[name] = plain(response)
    last = [*found["values"]["outputs"]][-1]
    response = await client.infer(base, request(model, inputs, False, [last]), model_name=model)
    found["last"] = plain(response)
    await client.close()
    return found


async def over_grpc(port: int, model: str, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Call every method of the gRPC client."""
    client = InferenceGRPCClient(f"127.0.0.1:{port}")
    found: dict[str, Any] = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready(model),
    }
    for name, binary in (("values", False), ("bytes", True)):
        found[name] = plain(await client.infer(request(model, inputs, binary, [])))
    last = [*found["values"]["outputs"]][-1]
    found["last"] = plain(await client.infer(request(model, inputs, True, [last])))
    await client.close()
    return found


async def main() -> None:
    """Send the request over both transports."""
    http_port, grpc_port, model = sys.argv[1:]
    inputs = json.load(sys.stdin)
    found = {
        "http": await over_http(int(http_port), model, inputs),
        "grpc": await over_grpc(int(grpc_port), model, inputs),
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
