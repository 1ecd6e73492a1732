"""What an exported model says of a picture and why, without torch: needs onnxruntime, numpy and Pillow.

python docs/examples/run_graph.py model.onnx photo.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
facts = json.loads(session.get_modelmeta().custom_metadata_map["explainkit"])
_, channels, height, width = facts["input"]["shape"]
low, high = facts["input"]["value_range"]
picture = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("L" if channels == 1 else "RGB")
pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
images = (pixels.reshape(1, height, width, channels).transpose(0, 3, 1, 2) * (high - low) + low).copy()

names = [output.name for output in session.get_outputs()]
given = dict(zip(names, session.run(names, {"images": images}), strict=True))

target, contributions = given["targets"][0], given["contributions"][0]
logit, base = given["logits"][0, target], given["base"][0]
print(f"{facts['classes'][target]}: {logit:.4f} = {base:.4f} + {contributions.sum():.4f}", end=" ")
print(f"+ {logit - base - contributions.sum():.0e} by {facts['explainer']}, model {facts['digest'][:12]}")
for unit in np.abs(contributions).argsort()[::-1][:3]:
    print(f"{contributions[unit]:+.4f} {facts['units']['names'][unit]}")
