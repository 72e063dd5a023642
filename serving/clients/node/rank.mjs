// Ranks a shop's items for a query: asks TensorFlow Serving, or `tfmmrank serve`, over gRPC.
//
//   node rank.mjs "red running shoes" i1 i2 i3 --address 127.0.0.1:8500 --model shop

import { readFileSync, realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const PROTOS = fileURLToPath(new URL("protos", import.meta.url));
const definition = loadSync("tensorflow_serving/apis/prediction_service.proto", {
  includeDirs: [PROTOS],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
});
const { PredictionService } = grpc.loadPackageDefinition(definition).tensorflow.serving;

// A server that restarts is asked again; a refusal is not.
const SERVICE_CONFIG = {
  methodConfig: [
    {
      name: [{ service: "tensorflow.serving.PredictionService" }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.05s",
        maxBackoff: "1s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
};

/** One channel for all requests: make it once. `rootCa` is a PEM file, for TLS. */
export function connect(address, rootCa) {
  const credentials = rootCa ? grpc.credentials.createSsl(readFileSync(rootCa)) : grpc.credentials.createInsecure();
  return new PredictionService(address, credentials, {
    "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
    "grpc.max_receive_message_length": -1, // 4 MB otherwise
  });
}

const shapeOf = (sizes) => ({ dim: sizes.map((size) => ({ size })) });
const strings = (values, sizes) => ({
  dtype: "DT_STRING",
  tensor_shape: shapeOf(sizes),
  string_val: values.map((value) => Buffer.from(value, "utf8")),
});
const floats = (values, sizes) => ({ dtype: "DT_FLOAT", tensor_shape: shapeOf(sizes), float_val: values });
const ints = (values, sizes) => ({ dtype: "DT_INT32", tensor_shape: shapeOf(sizes), int_val: values });

/** The numbers of a float tensor, whichever of its two forms the server chose. */
function readFloats(tensor) {
  const { buffer, byteOffset, length } = tensor.tensor_content;
  if (!length) return tensor.float_val;
  const view = new DataView(buffer, byteOffset, length);
  return Array.from({ length: length / 4 }, (_, place) => view.getFloat32(4 * place, true));
}

/** The truth values of a bool tensor. */
function readBools(tensor) {
  return tensor.tensor_content.length ? Array.from(tensor.tensor_content, Boolean) : tensor.bool_val;
}

/**
 * Ranks items by id: best first, those that the model does not know last, ties as they were asked.
 *
 * `context` holds the model's other query columns, `{name: text or number}`: all that its signature `rank` names. A
 * missing text is "", a missing number NaN.
 */
export async function rank(client, { model, label, query, itemIds, context = {}, timeout = 5 }) {
  const request = {
    model_spec: { name: model, signature_name: "rank", ...(label && { version_label: label }) },
    inputs: {
      query: strings([query], [1]),
      item_ids: strings(itemIds, [1, itemIds.length]),
      num_items: ints([itemIds.length], [1]),
    },
  };
  for (const [name, value] of Object.entries(context)) {
    request.inputs[name] = typeof value === "number" ? floats([value], [1]) : strings([value], [1]);
  }
  const deadline = Date.now() + 1000 * timeout;
  const response = await new Promise((resolve, reject) => {
    client.Predict(request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
  const scores = readFloats(response.outputs.scores);
  const known = readBools(response.outputs.known);
  return itemIds
    .map((itemId, place) => ({ item_id: itemId, score: scores[place], known: known[place] }))
    .sort((a, b) => b.known - a.known || b.score - a.score);
}

const pairs = (texts, read) =>
  texts.map((text) => {
    const at = text.indexOf("=");
    if (at < 1) throw new Error(`got ${text}; expected NAME=VALUE`);
    return [text.slice(0, at), read(text.slice(at + 1))];
  });

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      address: { type: "string", default: "127.0.0.1:8500" },
      model: { type: "string", default: "shop" },
      label: { type: "string" },
      "tls-ca": { type: "string" },
      text: { type: "string", multiple: true, default: [] }, // a query column: NAME=VALUE
      number: { type: "string", multiple: true, default: [] }, // likewise; NAME= is a missing one
      timeout: { type: "string", default: "5" },
      json: { type: "boolean", default: false },
    },
  });
  const [query, ...itemIds] = positionals;
  if (!itemIds.length) throw new Error('which items? Usage: node rank.mjs "red running shoes" i1 i2 i3');
  const context = Object.fromEntries([
    ...pairs(values.text, String),
    ...pairs(values.number, (text) => (text ? Number(text) : NaN)),
  ]);
  const client = connect(values.address, values["tls-ca"]);
  try {
    const { model, label } = values;
    const items = await rank(client, { model, label, query, itemIds, context, timeout: Number(values.timeout) });
    if (values.json) console.log(JSON.stringify(items));
    else for (const item of items) console.log(item.item_id, item.known ? item.score.toFixed(4) : "(unknown)");
  } finally {
    client.close();
  }
}

if (realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  main().catch((error) => {
    console.error(`rank.mjs: ${error.message}`); // gRPC's begins with the status: "5 NOT_FOUND: …"
    process.exitCode = 1;
  });
}
