// What an exported graph says of a picture, and why: for any engine that runs onnxruntime-web.

export async function openGraph(ort, wasm, graph) {
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = 1; // more need headers that a page opened from disk does not have
  return ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
}

// Pixels (height, width, RGBA) in bytes, as a canvas has them, as images (1, 3, height, width).
export function imagesOf(pixels, facts) {
  const [, channels, height, width] = facts.input.shape;
  const [low, high] = facts.input.value_range;
  const area = height * width, images = new Float32Array(channels * area);
  for (let cell = 0; cell < area; cell++)
    for (let channel = 0; channel < channels; channel++)
      images[channel * area + cell] = (pixels[4 * cell + channel] / 255) * (high - low) + low;
  return images;
}

// A unit's phrase where it has one, as "fanned tail (filter 68)"; else its name.
function wordsFor(units, unit) {
  const phrase = units.phrases ? units.phrases[unit] : null;
  return phrase ? `${phrase} (${units.names[unit]})` : units.names[unit];
}

export async function explain(ort, session, facts, pixels, count = 5) {
  const shape = [1, ...facts.input.shape.slice(1)];
  const given = await session.run({ images: new ort.Tensor("float32", imagesOf(pixels, facts), shape) });
  const target = Number(given.targets.data[0]), contributions = [...given.contributions.data];
  const logit = given.logits.data[target], base = given.base.data[0];
  const reasons = contributions
    .map((contribution, unit) => ({ unit: wordsFor(facts.units, unit), contribution }))
    .sort((one, other) => Math.abs(other.contribution) - Math.abs(one.contribution));
  const residual = logit - base - contributions.reduce((sum, value) => sum + value, 0);
  const saliency = given.saliency ? given.saliency.data : null;
  return { name: facts.classes[target], logit, base, residual, reasons: reasons.slice(0, count), saliency };
}
