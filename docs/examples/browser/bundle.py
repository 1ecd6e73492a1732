"""One page that holds a graph and what runs it, so that it works from disk, offline, on any device.

npm install onnxruntime-web
python docs/examples/browser/bundle.py model.onnx node_modules/onnxruntime-web/dist why.html
"""

import json
import sys
from base64 import b64encode
from pathlib import Path

import onnxruntime

HERE = Path(__file__).parent


def page(graph: Path, runtime: Path) -> str:
    """The page, with the graph, its metadata, and the runtime in WebAssembly inside."""
    metadata = onnxruntime.InferenceSession(graph).get_modelmeta().custom_metadata_map
    files = {
        "runtime": runtime / "ort.wasm.bundle.min.mjs",
        "wasm": runtime / "ort-wasm-simd-threaded.wasm",
        "graph": graph,
        "code": HERE / "explain.mjs",
    }
    packed = {name: b64encode(file.read_bytes()).decode() for name, file in files.items()}
    packed["facts"] = json.loads(metadata["explainkit"])
    content = b64encode(json.dumps(packed).encode()).decode()
    return (HERE / "page.html").read_text(encoding="utf-8").replace("@BUNDLE@", content)


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(page(Path(sys.argv[1]), Path(sys.argv[2])), encoding="utf-8")
